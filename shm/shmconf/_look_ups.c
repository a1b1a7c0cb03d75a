/* shmconf._native.LookUps: the hot path of a Reader, which derives from it. A look-up of a scalar that was looked up at
 * this version before costs one atomic load and one dictionary look-up, and no Python frame.
 *
 * The cache is a version and two dictionaries of scalars: `by_path` (what get takes: dotted texts and tuples) and
 * `by_key` (what [] takes that is no tuple). It belongs to the Attachment in use, so to one epoch; for another version
 * or Attachment the dictionaries are replaced, never cleared, and only what was found at that version goes in.
 *
 * A scalar that is not there yet is taken out of the segment, and remembered from the second look-up at a version on,
 * here too. Everything else is Python's:
 * `_look_up_anew(path)` and `_look_up_key_anew(key)` find and remember a value of any type or return MISSING, or say what
 * is wrong; `_follow_name()` looks at the segment's name at every 1,024th look-up, `_closed()` raises.
 *
 * Threads: with the GIL nothing here lets go of it between the load of `latest` and the new reference to what was
 * found. Without it, a critical section of the object stands in its place.
 */
#include "_native.h"

#include <stdbool.h>

enum { LOOK_UPS_PER_CHECK = 1024, MOST_REMEMBERED = 4096 };

#define LIKELY(condition) __builtin_expect((condition), 1)
#define UNLIKELY(condition) __builtin_expect((condition), 0)

#ifdef Py_GIL_DISABLED
#define BEGIN_ALONE(self) Py_BEGIN_CRITICAL_SECTION((PyObject *)(self))
#define END_ALONE() Py_END_CRITICAL_SECTION()
#else
#define BEGIN_ALONE(self) {
#define END_ALONE() }
#endif

typedef struct {
    PyObject_HEAD
    PyObject *attachment;     /* an Attachment, or None when the Reader is closed */
    PyObject *missing;        /* paths.MISSING */
    const uint64_t *latest;   /* in the Attachment's mapping */
    uint64_t version;         /* that the dictionaries belong to; RETIRED, which no version is, before the first */
    uint64_t found;           /* the greatest version of the Attachment that something was found at here */
    uint64_t adopted;         /* the greatest that was told to whoever counts the workers */
    PyObject *by_path, *by_key;
    PyObject *membership;     /* a registration.Membership, or None */
    uint32_t count;           /* look-ups; it wraps */
} LookUps;

/* --- the cache ----------------------------------------------------------------------------------------------------- */

struct dictionaries {
    PyObject *by_path, *by_key;
};

/* To make a dictionary may collect garbage, which runs any code and lets other threads run: it is done before the
 * object is looked at, and what it was exchanged for is let go of after. */
static bool
make_empty(struct dictionaries *made)
{
    made->by_path = PyDict_New();
    made->by_key = PyDict_New();
    if (made->by_path == NULL || made->by_key == NULL) {
        Py_CLEAR(made->by_path);
        Py_CLEAR(made->by_key);
        return false;
    }
    return true;
}

static void
let_go(struct dictionaries *old)
{
    Py_XDECREF(old->by_path);
    Py_XDECREF(old->by_key);
}

/* These dictionaries, for `version`, in place of what was there. */
static void
exchange(LookUps *self, struct dictionaries *dictionaries, uint64_t version)
{
    struct dictionaries old = {self->by_path, self->by_key};
    self->by_path = dictionaries->by_path;
    self->by_key = dictionaries->by_key;
    __atomic_store_n(&self->version, version, __ATOMIC_RELAXED);
    *dictionaries = old;
}

/* Whether equal tuples are always the same path: True and 1.0 are equal to 1, but no index of a list. */
static bool
has_plain_parts(PyObject *key)
{
    if (!PyTuple_CheckExact(key)) {
        return false;
    }
    for (Py_ssize_t i = PyTuple_Size(key) - 1; i >= 0; i--) {
        PyObject *part = PyTuple_GetItem(key, i);
        if (!PyUnicode_CheckExact(part) && !PyLong_CheckExact(part)) {
            return false;
        }
    }
    return true;
}

static inline bool
may_be_remembered(PyObject *key)
{
    return LIKELY(PyUnicode_CheckExact(key)) || has_plain_parts(key);
}

/* A new reference to what was found at `key` at the version that is published now, or NULL (with no exception). */
static inline PyObject *
remembered(LookUps *self, PyObject *const *dictionary, PyObject *key)
{
    PyObject *value = NULL;
    BEGIN_ALONE(self);
    /* Acquire: pairs with the writer's release store of `latest`. A retired segment's never matches. */
    if (LIKELY(self->latest != NULL) && LIKELY(__atomic_load_n(self->latest, __ATOMIC_ACQUIRE) == self->version)) {
#ifdef Py_GIL_DISABLED
        PyObject *held = Py_NewRef(*dictionary); /* a thread that waits for a lock is out of its section meanwhile */
        PyDict_GetItemRef(held, key, &value);
        Py_DECREF(held);
#else
        value = PyDict_GetItemWithError(*dictionary, key);
        Py_XINCREF(value);
#endif
    }
    END_ALONE();
    return value;
}

/* Every look-up is counted. */
static inline bool
is_time_to_follow(LookUps *self)
{
#ifdef Py_GIL_DISABLED
    uint32_t count = __atomic_add_fetch(&self->count, 1, __ATOMIC_RELAXED);
#else
    uint32_t count = ++self->count;
#endif
    return count % LOOK_UPS_PER_CHECK == 0;
}

static int
follow_name(LookUps *self)
{
    PyObject *done = PyObject_CallMethod((PyObject *)self, "_follow_name", NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Keeps what was found at `version` in an Attachment, unless that is not what is in use by now. */
static int
remember(LookUps *self, PyObject *attachment, uint64_t version, PyObject *const *dictionary, PyObject *key,
         PyObject *value)
{
    struct dictionaries fresh = {NULL, NULL};
    int result = 0;
    /* Relaxed: a guess, decided below. */
    if (__atomic_load_n(&self->version, __ATOMIC_RELAXED) != version && !make_empty(&fresh)) {
        return -1;
    }
    BEGIN_ALONE(self);
    if (self->latest != NULL && attachment == self->attachment) {
        /* Versions of one Attachment only grow, so a lower one is an answer that came late. */
        bool is_newer = self->version == SHMCONF_RETIRED || version > self->version;
        if (is_newer && fresh.by_path != NULL) {
            exchange(self, &fresh, version);
        }
        if (version == self->version && PyDict_Size(self->by_path) + PyDict_Size(self->by_key) < MOST_REMEMBERED) {
            PyObject *held = Py_NewRef(*dictionary); /* see above */
            result = PyDict_SetItem(held, key, value);
            Py_DECREF(held);
        }
    }
    END_ALONE();
    let_go(&fresh);
    return result;
}

/* Whoever counts the workers is to know of a new version that something was found at. 0, or -1 with an exception. */
static int
adopt(LookUps *self, uint64_t version)
{
    if (LIKELY(__atomic_load_n(&self->adopted, __ATOMIC_RELAXED) >= version)) {
        return 0; /* also an answer that came late */
    }
    __atomic_store_n(&self->adopted, version, __ATOMIC_RELAXED);
    PyObject *membership;
    BEGIN_ALONE(self);
    membership = Py_NewRef(self->membership);
    END_ALONE();
    PyObject *done = membership;
    if (membership != Py_None) {
        PyObject *place = PyObject_GetAttrString(membership, "place");
        if (place == NULL || !is_place(place) || !place_tell(place, version)) {
            PyErr_Clear();
            done = PyObject_CallMethod(membership, "adopt", "K", (unsigned long long)version);
            Py_XDECREF(done);
        }
        Py_XDECREF(place);
    }
    Py_DECREF(membership);
    return done == NULL ? -1 : 0;
}

/* Whether what was found at `version` is to be remembered: from the second look-up on, which also adopts the version (-1
 * with an exception if that was interrupted). What that takes, two system calls, is not what the first look-up after a
 * publication should wait for; and what is not remembered brings the second one here, whatever it asks for. */
static int
is_found_again(LookUps *self, uint64_t version)
{
    if (UNLIKELY(__atomic_load_n(&self->found, __ATOMIC_RELAXED) < version)) {
        __atomic_store_n(&self->found, version, __ATOMIC_RELAXED);
        return 0;
    }
    return adopt(self, version) == 0 ? 1 : -1;
}

/* --- looking up ---------------------------------------------------------------------------------------------------- */

/* The scalar at `key` out of the segment, remembered; NULL without an exception where Python must look, with one where
 * a signal came. */
static PyObject *
look_up_scalar(LookUps *self, PyObject *const *dictionary, PyObject *key)
{
    uint64_t version = 0;
    PyObject *attachment = NULL;
    BEGIN_ALONE(self);
    /* Acquire: pairs with the writer's release store of `latest`. A retired segment may have to be left first. */
    if (self->latest != NULL && (__atomic_load_n(self->latest, __ATOMIC_ACQUIRE) & SHMCONF_RETIRED) == 0) {
        attachment = Py_NewRef(self->attachment);
    }
    END_ALONE();
    if (attachment == NULL) {
        return NULL;
    }
    PyObject *value = find_scalar(attachment, key, dictionary == &self->by_key, self->missing, &version);
    int again = value == NULL ? 0 : is_found_again(self, version);
    if (again > 0 && value != self->missing && remember(self, attachment, version, dictionary, key, value) != 0) {
        PyErr_Clear(); /* no memory for the cache is no reason to refuse the value */
    }
    Py_DECREF(attachment);
    if (again < 0) {
        Py_CLEAR(value);
    }
    return value;
}

/* What is at `key`, from the cache or anew; MISSING where there is nothing. */
static inline PyObject *
look_up(LookUps *self, PyObject *const *dictionary, PyObject *key, const char *anew)
{
    if (UNLIKELY(is_time_to_follow(self)) && follow_name(self) != 0) {
        return NULL;
    }
    if (may_be_remembered(key)) {
        PyObject *value = remembered(self, dictionary, key);
        if (LIKELY(value != NULL) || (value = look_up_scalar(self, dictionary, key)) != NULL) {
            return value;
        }
        if (UNLIKELY(PyErr_Occurred() != NULL)) {
            return NULL;
        }
    }
    return PyObject_CallMethod((PyObject *)self, anew, "(O)", key);
}

static PyObject *
bad_arguments(const char *why)
{
    PyErr_Format(PyExc_TypeError, "get() takes a path and a default: %s", why);
    return NULL;
}

/* get(path, default=None), with both also as keywords. */
static PyObject *
look_ups_get(LookUps *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *path = count > 0 ? args[0] : NULL;
    PyObject *fallback = count > 1 ? args[1] : NULL;
    if (UNLIKELY(count > 2)) {
        return bad_arguments("there are more arguments");
    }
    if (keywords != NULL) {
        for (Py_ssize_t i = 0; i < PyTuple_Size(keywords); i++) {
            PyObject *name = PyTuple_GetItem(keywords, i);
            bool is_path = PyUnicode_CompareWithASCIIString(name, "path") == 0;
            if (!is_path && PyUnicode_CompareWithASCIIString(name, "default") != 0) {
                return bad_arguments("there is an unexpected keyword argument");
            }
            PyObject **given = is_path ? &path : &fallback;
            if (*given != NULL) {
                return bad_arguments("one is given twice");
            }
            *given = args[count + i];
        }
    }
    if (UNLIKELY(path == NULL)) {
        return bad_arguments("the path is missing");
    }
    PyObject *value = look_up(self, &self->by_path, path, "_look_up_anew");
    if (UNLIKELY(value == self->missing)) {
        Py_DECREF(value);
        return Py_NewRef(fallback != NULL ? fallback : Py_None);
    }
    return value;
}

static PyObject *
look_ups_item(LookUps *self, PyObject *key)
{
    PyObject *value = PyTuple_Check(key) ? look_up(self, &self->by_path, key, "_look_up_anew")
                                         : look_up(self, &self->by_key, key, "_look_up_key_anew");
    if (value == self->missing) {
        Py_DECREF(value);
        PyObject *argument = PyTuple_Pack(1, key); /* else a tuple would become the arguments of the KeyError */
        if (argument != NULL) {
            PyErr_SetObject(PyExc_KeyError, argument);
            Py_DECREF(argument);
        }
        return NULL;
    }
    return value;
}

static int
look_ups_contains(LookUps *self, PyObject *key)
{
    PyObject *value = PyTuple_Check(key) ? look_up(self, &self->by_path, key, "_look_up_anew")
                                         : look_up(self, &self->by_key, key, "_look_up_key_anew");
    if (value == NULL) {
        return -1;
    }
    Py_DECREF(value);
    return value != self->missing;
}

/* _remember(attachment, version, by_path, key, value): for what Python found. */
static PyObject *
look_ups_remember(LookUps *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 5) {
        return PyErr_Format(PyExc_TypeError, "_remember() takes 5 arguments, not %zd", count);
    }
    uint64_t version = PyLong_AsUnsignedLongLong(args[1]);
    int by_path = PyObject_IsTrue(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *const *dictionary = by_path ? &self->by_path : &self->by_key;
    if (may_be_remembered(args[3]) && remember(self, args[0], version, dictionary, args[3], args[4]) != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* _is_found_again(version): of what Python looked up in the segment. */
static PyObject *
look_ups_is_found_again(LookUps *self, PyObject *version)
{
    uint64_t found = PyLong_AsUnsignedLongLong(version);
    int again = PyErr_Occurred() ? -1 : is_found_again(self, found);
    return again < 0 ? NULL : PyBool_FromLong(again);
}

/* _adopt(version): of what Python copied. */
static PyObject *
look_ups_adopt(LookUps *self, PyObject *version)
{
    uint64_t adopted = PyLong_AsUnsignedLongLong(version);
    if (PyErr_Occurred() || adopt(self, adopted) != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the attachment in use ----------------------------------------------------------------------------------------- */

static PyObject *
get_attachment(LookUps *self, void *Py_UNUSED(ignored))
{
    PyObject *attachment;
    BEGIN_ALONE(self);
    attachment = Py_NewRef(self->attachment);
    END_ALONE();
    return attachment;
}

static int
set_attachment(LookUps *self, PyObject *attachment, void *Py_UNUSED(ignored))
{
    struct dictionaries dictionaries;
    PyObject *old;
    if (attachment == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Reader cannot do without an attachment");
        return -1;
    }
    const uint64_t *latest = attachment == Py_None ? NULL : attachment_latest_word(attachment);
    if (latest == NULL && attachment != Py_None) {
        return -1;
    }
    if (!make_empty(&dictionaries)) {
        return -1;
    }
    BEGIN_ALONE(self);
    exchange(self, &dictionaries, SHMCONF_RETIRED);
    old = self->attachment;
    self->attachment = Py_NewRef(attachment);
    self->latest = latest;
    __atomic_store_n(&self->found, 0, __ATOMIC_RELAXED); /* another epoch's may be lower */
    __atomic_store_n(&self->adopted, 0, __ATOMIC_RELAXED);
    END_ALONE();
    let_go(&dictionaries);
    Py_XDECREF(old); /* last: this may unmap what `latest` pointed to */
    return 0;
}

static PyObject *
get_membership(LookUps *self, void *Py_UNUSED(ignored))
{
    PyObject *membership;
    BEGIN_ALONE(self);
    membership = Py_NewRef(self->membership);
    END_ALONE();
    return membership;
}

static int
set_membership(LookUps *self, PyObject *membership, void *Py_UNUSED(ignored))
{
    PyObject *old;
    PyObject *taken = Py_NewRef(membership == NULL ? Py_None : membership);
    BEGIN_ALONE(self);
    old = self->membership;
    self->membership = taken;
    END_ALONE();
    Py_XDECREF(old);
    return 0;
}

static PyObject *
get_version(LookUps *self, void *Py_UNUSED(ignored))
{
    uint64_t word = SHMCONF_RETIRED;
    BEGIN_ALONE(self);
    if (self->latest != NULL) {
        /* Acquire: pairs with the writer's release store of `latest`. */
        word = __atomic_load_n(self->latest, __ATOMIC_ACQUIRE) & ~SHMCONF_RETIRED;
    }
    END_ALONE();
    if (word == SHMCONF_RETIRED) {
        return PyObject_CallMethod((PyObject *)self, "_closed", NULL);
    }
    return PyLong_FromUnsignedLongLong(word);
}

/* --- the type ------------------------------------------------------------------------------------------------------ */

static PyObject *
look_ups_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    PyObject *paths = PyImport_ImportModule("shmconf.paths");
    PyObject *missing = paths == NULL ? NULL : PyObject_GetAttrString(paths, "MISSING");
    Py_XDECREF(paths);
    if (missing == NULL) {
        return NULL;
    }
    allocfunc take = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    LookUps *self = (LookUps *)take(type, 0);
    if (self == NULL) {
        Py_DECREF(missing);
        return NULL;
    }
    self->missing = missing;
    self->attachment = Py_NewRef(Py_None);
    self->membership = Py_NewRef(Py_None);
    struct dictionaries dictionaries;
    if (!make_empty(&dictionaries)) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    exchange(self, &dictionaries, SHMCONF_RETIRED); /* for nothing: there were none */
    return (PyObject *)self;
}

static int
look_ups_traverse(LookUps *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->attachment);
    Py_VISIT(self->membership);
    Py_VISIT(self->by_path);
    Py_VISIT(self->by_key);
    return 0;
}

static int
look_ups_clear(LookUps *self)
{
    /* Closed, rather than empty: what is collected with it may still ask it. */
    PyObject *old = self->attachment;
    self->latest = NULL; /* first: it lies in the attachment's mapping */
    self->attachment = Py_NewRef(Py_None);
    Py_XDECREF(old);
    old = self->membership;
    self->membership = Py_NewRef(Py_None);
    Py_XDECREF(old);
    Py_CLEAR(self->by_path);
    Py_CLEAR(self->by_key);
    return 0;
}

static void
look_ups_dealloc(LookUps *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    look_ups_clear(self);
    Py_CLEAR(self->attachment);
    Py_CLEAR(self->membership);
    Py_CLEAR(self->missing);
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static PyMethodDef get_method = {
    "get", METHOD(look_ups_get), METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("get($self, /, path, default=None)\n--\n\n"
              "The value at `path` (dotted text, or a tuple of keys), or `default` where there is none.\n\n"
              "Containers are fresh at each call. Never blocks. Raises PathError for malformed text, SegmentCorrupt or\n"
              "SegmentBusy where the segment itself is at fault, Error once the Reader is closed."),
};

/* Gives a class that derives from LookUps a `get` of its own, unless it has another. CPython calls a method written in C
 * without a detour only where its class is exactly that of the object. */
static PyObject *
look_ups_init_subclass(PyObject *class, PyObject *Py_UNUSED(args))
{
    PyObject *inherited = PyObject_GetAttrString(class, "get"); /* LookUps itself has none */
    bool is_other = inherited != NULL && Py_TYPE(inherited) != &PyMethodDescr_Type;
    Py_XDECREF(inherited);
    if (is_other) {
        Py_RETURN_NONE;
    }
    PyErr_Clear();
    PyObject *get = PyDescr_NewMethod((PyTypeObject *)class, &get_method);
    int result = get == NULL ? -1 : PyObject_SetAttrString(class, "get", get);
    Py_XDECREF(get);
    if (result != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef look_ups_methods[] = {
    {"__init_subclass__", look_ups_init_subclass, METH_NOARGS | METH_CLASS, NULL},
    {"_remember", METHOD(look_ups_remember), METH_FASTCALL,
     PyDoc_STR("_remember(attachment, version, by_path, key, value)")},
    {"_adopt", METHOD(look_ups_adopt), METH_O, PyDoc_STR("_adopt(version): it was copied")},
    {"_is_found_again", METHOD(look_ups_is_found_again), METH_O,
     PyDoc_STR("_is_found_again(version) -> whether what was found at it is to be remembered")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef look_ups_properties[] = {
    {"version", (getter)get_version, NULL,
     PyDoc_STR("The version now in shared memory: one atomic load, which alone never follows a replacement."), NULL},
    {"_attachment", (getter)get_attachment, (setter)set_attachment, PyDoc_STR("the Attachment in use, or None"), NULL},
    {"_membership", (getter)get_membership, (setter)set_membership, PyDoc_STR("among the workers, or None"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot look_ups_slots[] = {
    {Py_tp_doc, PyDoc_STR("What a Reader looks values up with; see shmconf.look_ups.")},
    {Py_tp_new, look_ups_new},
    {Py_tp_dealloc, look_ups_dealloc},
    {Py_tp_traverse, look_ups_traverse},
    {Py_tp_clear, look_ups_clear},
    {Py_tp_methods, look_ups_methods},
    {Py_tp_getset, look_ups_properties},
    {Py_mp_subscript, look_ups_item},
    {Py_sq_contains, look_ups_contains},
    {0, NULL},
};

PyType_Spec look_ups_spec = {
    .name = "shmconf._native.LookUps",
    .basicsize = sizeof(LookUps),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = look_ups_slots,
};
