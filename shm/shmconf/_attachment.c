/* shmconf._native.Attachment: a segment of shm/include/shmconf.h as Python has it. The contract of every method is the
 * protocol `Attached` in opening.py; attachment.py is the other implementation of it.
 *
 * The segment is closed with the object, so whoever calls a method keeps it open by the reference that the call holds,
 * in any thread, whatever happens to the Reader meanwhile. No state changes after the object is made.
 */
#include "_native.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

typedef struct {
    PyObject_HEAD
    shmconf_segment *segment;
    PyObject *path;
} Attachment;

/* --- faults ------------------------------------------------------------------------------------------------------ */

static const char *
class_of(int result)
{
    switch (result) {
    case SHMCONF_NOT_FOUND:
        return "SegmentNotFound";
    case SHMCONF_UNTRUSTED:
        return "SegmentUntrusted";
    case SHMCONF_INCOMPATIBLE:
        return "SegmentIncompatible";
    case SHMCONF_CORRUPT:
        return "SegmentCorrupt";
    case SHMCONF_BUSY:
        return "SegmentBusy";
    default:
        return "Error";
    }
}

/* The cause of a SegmentNotFound that comes of a directory that may not be entered. */
static void
add_cause(PyObject *error, const shmconf_fault *fault)
{
    const char *reason = strerror(fault->system_error);
    PyObject *cause = PyObject_CallFunction(PyExc_PermissionError, "is", fault->system_error, reason);
    if (cause == NULL) {
        PyErr_Clear();
        return;
    }
    PyException_SetCause(error, cause);
}

/* The exception of shmconf.errors that a fault stands for; NULL, to be returned. */
static PyObject *
raise(const shmconf_fault *fault)
{
    if (fault->result == SHMCONF_SYSTEM) {
        errno = fault->system_error;
        return fault->system_error == ENOMEM ? PyErr_NoMemory() : PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *errors = PyImport_ImportModule("shmconf.errors");
    PyObject *class = errors == NULL ? NULL : PyObject_GetAttrString(errors, class_of(fault->result));
    PyObject *text = PyUnicode_DecodeUTF8(fault->text, (Py_ssize_t)strlen(fault->text), "replace");
    PyObject *error = class == NULL || text == NULL ? NULL : PyObject_CallFunctionObjArgs(class, text, NULL);
    if (error != NULL) {
        if (fault->result == SHMCONF_NOT_FOUND && fault->system_error == EACCES) {
            add_cause(error, fault);
        }
        PyErr_SetObject(class, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(text);
    Py_XDECREF(class);
    Py_XDECREF(errors);
    return NULL;
}

/* --- parts of a path ---------------------------------------------------------------------------------------------- */

enum { FEW_PARTS = 16, SHORT_TEXT = 256 };

struct parts {
    shmconf_part few[FEW_PARTS];
    shmconf_part *all;
    size_t count;
    char short_text[SHORT_TEXT]; /* of a dotted path, unescaped */
    char *text;
};

static void
free_parts(struct parts *parts)
{
    if (parts->all != parts->few) {
        PyMem_Free(parts->all);
    }
    if (parts->text != parts->short_text) {
        PyMem_Free(parts->text);
    }
}

/* Room for `count` parts and `length` bytes of text. */
static bool
allocate_parts(struct parts *parts, size_t count, size_t length)
{
    parts->count = count;
    parts->all = count <= FEW_PARTS ? parts->few : PyMem_Calloc(count, sizeof *parts->all);
    parts->text = length <= SHORT_TEXT ? parts->short_text : PyMem_Malloc(length);
    if (parts->all == NULL || parts->text == NULL) {
        free_parts(parts);
        PyErr_NoMemory();
        return false;
    }
    return true;
}

/* One part of an exact built-in type: 1, 0 where it is none that a point look-up takes, -1 with an exception. */
static int
take_part(PyObject *given, shmconf_part *part)
{
    Py_ssize_t length;
    memset(part, 0, sizeof *part);
    if (PyUnicode_CheckExact(given)) {
        part->kind = SHMCONF_STRING;
        part->bytes = PyUnicode_AsUTF8AndSize(given, &length);
        if (part->bytes == NULL) { /* a lone surrogate */
            PyErr_Clear();
            return 0;
        }
        part->length = (size_t)length;
        return 1;
    }
    if (PyLong_CheckExact(given)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(given, &overflow);
        part->kind = SHMCONF_INTEGER;
        part->number = (uint64_t)number;
        part->negative = number < 0 && overflow == 0;
        if (overflow > 0) {
            part->number = PyLong_AsUnsignedLongLong(given);
            if (PyErr_Occurred()) {
                PyErr_Clear();
                return 0;
            }
        }
        return overflow >= 0;
    }
    if (given == Py_True || given == Py_False) {
        part->kind = SHMCONF_BOOLEAN;
        part->number = given == Py_True;
        return 1;
    }
    if (given == Py_None) {
        part->kind = SHMCONF_NIL;
        return 1;
    }
    if (PyFloat_CheckExact(given)) {
        part->kind = SHMCONF_FLOAT;
        part->real = PyFloat_AsDouble(given);
        return 1;
    }
    if (PyBytes_CheckExact(given)) {
        char *bytes;
        if (PyBytes_AsStringAndSize(given, &bytes, &length) != 0) {
            return -1;
        }
        part->kind = SHMCONF_BINARY;
        part->bytes = bytes;
        part->length = (size_t)length;
        return 1;
    }
    return 0;
}

static int
take_tuple(PyObject *path, struct parts *parts)
{
    if (!allocate_parts(parts, (size_t)PyTuple_Size(path), 0)) {
        return -1;
    }
    for (size_t i = 0; i < parts->count; i++) {
        int taken = take_part(PyTuple_GetItem(path, (Py_ssize_t)i), &parts->all[i]);
        if (taken != 1) {
            free_parts(parts);
            return taken;
        }
    }
    return 1;
}

static int
take_text(PyObject *path, struct parts *parts)
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(path, &length);
    if (text == NULL) { /* a lone surrogate */
        PyErr_Clear();
        return 0;
    }
    if (!allocate_parts(parts, 0, (size_t)length)) {
        return -1;
    }
    ptrdiff_t count = shmconf_path_parse(text, (size_t)length, parts->text, parts->few, FEW_PARTS);
    if (count > FEW_PARTS) {
        free_parts(parts);
        if (!allocate_parts(parts, (size_t)count, (size_t)length)) {
            return -1;
        }
        count = shmconf_path_parse(text, (size_t)length, parts->text, parts->all, (size_t)count);
    }
    if (count < 0) {
        free_parts(parts);
        return 0;
    }
    parts->count = (size_t)count;
    return 1;
}

/* The parts of a path, text or tuple, which the caller keeps: 1; 0 where it is malformed or has parts of rarer types,
 * which Python looks at; -1 with an exception. They are to be freed after 1, and only then. */
static int
take_path(PyObject *path, struct parts *parts)
{
    if (PyUnicode_CheckExact(path)) {
        return take_text(path, parts);
    }
    return PyTuple_Check(path) ? take_tuple(path, parts) : 0; /* a named one, too */
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void
attachment_dealloc(Attachment *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    shmconf_segment_close(self->segment);
    Py_XDECREF(self->path);
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static PyObject *
attachment_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"directory", "named", "name", "patience", NULL};
    PyObject *directory;
    int named, result;
    double patience;
    const char *name;
    shmconf_segment *segment = NULL;
    shmconf_fault fault;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&psd:Attachment", names, PyUnicode_FSConverter, &directory,
                                     &named, &name, &patience)) {
        return NULL;
    }
    const char *place = PyBytes_AsString(directory);
    Py_BEGIN_ALLOW_THREADS
    result = shmconf_segment_open(&segment, place, named != 0, name, &fault);
    Py_END_ALLOW_THREADS
    PyObject *path = PyUnicode_DecodeFSDefault(place);
    Py_DECREF(directory);
    allocfunc take = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Attachment *self = result == SHMCONF_OK && path != NULL ? (Attachment *)take(type, 0) : NULL;
    if (self == NULL) {
        shmconf_segment_close(segment);
        Py_XDECREF(path);
        return result == SHMCONF_OK ? NULL : raise(&fault);
    }
    self->segment = segment;
    shmconf_segment_set_patience(segment, (int64_t)(patience * 1e9));
    self->path = PyUnicode_FromFormat("%U/%s.shmconf", path, name);
    Py_DECREF(path);
    if (self->path == NULL) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

/* --- words -------------------------------------------------------------------------------------------------------- */

const uint64_t *
attachment_latest_word(PyObject *attachment)
{
    PyTypeObject *type = Py_TYPE(attachment);
    while (type != NULL && PyType_GetSlot(type, Py_tp_dealloc) != (void *)attachment_dealloc) {
        type = (PyTypeObject *)PyType_GetSlot(type, Py_tp_base);
    }
    if (type == NULL) {
        PyErr_SetString(PyExc_TypeError, "that is no native Attachment");
        return NULL;
    }
    return shmconf_segment_latest(((Attachment *)attachment)->segment);
}

static PyObject *
attachment_latest(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    /* Acquire: pairs with the writer's release store of `latest`. */
    uint64_t word = __atomic_load_n(shmconf_segment_latest(self->segment), __ATOMIC_ACQUIRE);
    return Py_BuildValue("KN", (unsigned long long)(word & ~SHMCONF_RETIRED),
                         PyBool_FromLong((word & SHMCONF_RETIRED) != 0));
}

static PyObject *
attachment_is_linked(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(shmconf_segment_is_linked(self->segment));
}

static PyObject *
attachment_heartbeat_age(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    int64_t age = shmconf_segment_heartbeat_age(self->segment);
    if (age < 0) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)age / 1e9);
}

static PyObject *
attachment_wake_word(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(shmconf_segment_wake_word(self->segment));
}

static PyObject *
attachment_wait(Attachment *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "wait() takes 2 arguments, not %zd", count);
    }
    unsigned long seen = PyLong_AsUnsignedLong(args[0]);
    if (seen == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    double seconds = PyFloat_AsDouble(args[1]);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (seen > UINT32_MAX || isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a wake word has 32 bits, and a timeout is a number of seconds");
        return NULL;
    }
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = shmconf_segment_sleep(self->segment, (uint32_t)seen, seconds);
    Py_END_ALLOW_THREADS
    if (result == SHMCONF_SYSTEM) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Sleeps until `latest` is beyond `after` or the segment is retired, for `seconds` at most: enum shmconf_result. */
static int
sleep_beyond(const shmconf_segment *segment, uint64_t after, double seconds, uint64_t *word)
{
    struct timespec now;
    double deadline = 0;
    for (;;) {
        uint32_t seen = shmconf_segment_wake_word(segment); /* before `latest`, or a bump in between is slept through */
        /* Acquire: pairs with the writer's release store of `latest`. */
        *word = __atomic_load_n(shmconf_segment_latest(segment), __ATOMIC_ACQUIRE);
        if (*word > after) { /* RETIRED is beyond any version */
            return SHMCONF_OK;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        double current = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
        deadline = deadline == 0 ? current + seconds : deadline;
        if (current >= deadline) {
            return SHMCONF_OK;
        }
        int result = shmconf_segment_sleep(segment, seen, deadline - current);
        if (result != SHMCONF_OK) {
            return result;
        }
    }
}

static PyObject *
attachment_wait_beyond(Attachment *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t word;
    int result;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "wait_beyond() takes 2 arguments, not %zd", count);
    }
    uint64_t after = PyLong_AsUnsignedLongLong(args[0]);
    double seconds = PyErr_Occurred() ? 0 : PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    result = sleep_beyond(self->segment, after, seconds, &word);
    Py_END_ALLOW_THREADS
    if (result == SHMCONF_SYSTEM) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (PyErr_CheckSignals() != 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(word & ~SHMCONF_RETIRED);
}

/* --- copies ------------------------------------------------------------------------------------------------------- */

/* Sections as bytes objects; `thread` is where the GIL was let go of, as the copies and their checksums are made without. */
struct sections {
    PyThreadState *thread;
    PyObject *bytes[3];
};

static int
place_of(int section)
{
    return section == SHMCONF_PAYLOAD ? 0 : section == SHMCONF_INDEX ? 1 : 2;
}

static void *
allocate_section(void *context, int section, size_t length)
{
    struct sections *sections = context;
    PyEval_RestoreThread(sections->thread);
    Py_XDECREF(sections->bytes[place_of(section)]); /* of a version that was overwritten meanwhile */
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    sections->bytes[place_of(section)] = bytes;
    char *memory = NULL;
    if (bytes == NULL) {
        PyErr_Clear();
    }
    else {
        memory = PyBytes_AsString(bytes);
    }
    sections->thread = PyEval_SaveThread();
    return memory;
}

/* (epoch, version, published_at, and the sections asked for in order), or None where nothing was published yet. */
static PyObject *
copy_sections(Attachment *self, int asked)
{
    struct sections sections = {NULL, {NULL, NULL, NULL}};
    shmconf_snapshot snapshot;
    shmconf_fault fault;
    PyObject *copied = NULL;
    sections.thread = PyEval_SaveThread();
    int result = shmconf_segment_copy(self->segment, asked, allocate_section, &sections, &snapshot, &fault);
    PyEval_RestoreThread(sections.thread);
    if (result == SHMCONF_NOT_FOUND) {
        copied = Py_NewRef(Py_None);
    }
    else if (result != SHMCONF_OK) {
        raise(&fault);
    }
    else if (asked == SHMCONF_ALL) {
        copied = Py_BuildValue("KKKOOO", snapshot.epoch, snapshot.version, snapshot.published_at, sections.bytes[0],
                               sections.bytes[1], sections.bytes[2]);
    }
    else {
        copied = Py_BuildValue("KKKO", snapshot.epoch, snapshot.version, snapshot.published_at, sections.bytes[2]);
    }
    for (int i = 0; i < 3; i++) {
        Py_XDECREF(sections.bytes[i]);
    }
    return copied;
}

static PyObject *
attachment_copy_sections(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    return copy_sections(self, SHMCONF_ALL);
}

static PyObject *
attachment_copy_metadata(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    return copy_sections(self, SHMCONF_METADATA);
}

static PyObject *
attachment_verify_latest(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    shmconf_fault fault;
    uint64_t version;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = shmconf_segment_verify(self->segment, &version, &fault);
    Py_END_ALLOW_THREADS
    if (result != SHMCONF_OK && result != SHMCONF_NOT_FOUND) {
        return raise(&fault);
    }
    return PyLong_FromUnsignedLongLong(version);
}

static PyObject *
attachment_copy_status(Attachment *self, PyObject *Py_UNUSED(ignored))
{
    unsigned char body[SHMCONF_STATUS_SIZE];
    shmconf_fault fault;
    size_t length;
    int result;
    Py_BEGIN_ALLOW_THREADS
    result = shmconf_segment_status(self->segment, body, &length, &fault);
    Py_END_ALLOW_THREADS
    if (result != SHMCONF_OK) {
        return raise(&fault);
    }
    if (length == 0) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize((const char *)body, (Py_ssize_t)length);
}

/* --- point look-ups ----------------------------------------------------------------------------------------------- */

/* A value that did not fit the first buffer, in a bytes object of its own; again if a longer one was published
 * meanwhile. NULL with SHMCONF_NO_SPACE in *result stands for an exception. */
static PyObject *
find_long(Attachment *self, const struct parts *parts, size_t length, uint64_t *version, int *result,
          shmconf_fault *fault)
{
    PyObject *value = NULL;
    while (*result == SHMCONF_NO_SPACE) {
        size_t capacity = length;
        Py_XDECREF(value);
        value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
        if (value == NULL) {
            return NULL;
        }
        char *memory = PyBytes_AsString(value);
        Py_BEGIN_ALLOW_THREADS
        *result = shmconf_segment_get(self->segment, parts->all, parts->count, memory, capacity, &length, version, fault);
        Py_END_ALLOW_THREADS
        if (*result == SHMCONF_OK && length != capacity) { /* a shorter one was */
            PyObject *shorter = PyBytes_FromStringAndSize(memory, (Py_ssize_t)length);
            Py_DECREF(value);
            return shorter;
        }
    }
    return value;
}

static PyObject *
attachment_find(Attachment *self, PyObject *path)
{
    unsigned char few[512];
    struct parts parts;
    size_t length = 0;
    uint64_t version = 0;
    shmconf_fault fault;
    int taken = take_path(path, &parts);
    if (taken != 1) {
        return taken < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    int result = shmconf_segment_get_at_once(self->segment, parts.all, parts.count, few, sizeof few, &length, &version,
                                             &fault);
    if (result == SHMCONF_BUSY) { /* nobody else is kept waiting by one that insists */
        Py_BEGIN_ALLOW_THREADS
        result = shmconf_segment_get(self->segment, parts.all, parts.count, few, sizeof few, &length, &version, &fault);
        Py_END_ALLOW_THREADS
    }
    PyObject *value = result == SHMCONF_OK ? PyBytes_FromStringAndSize((const char *)few, (Py_ssize_t)length)
                                           : find_long(self, &parts, length, &version, &result, &fault);
    free_parts(&parts);
    if (result == SHMCONF_OK && value != NULL) {
        return Py_BuildValue("KN", (unsigned long long)version, value);
    }
    Py_XDECREF(value);
    if (result == SHMCONF_MISSING || result == SHMCONF_NOT_FOUND) {
        return Py_BuildValue("KO", (unsigned long long)version, Py_None);
    }
    return PyErr_Occurred() ? NULL : raise(&fault);
}

/* The value that a scalar of one of msgpack's plain types is, or NULL without an exception. */
static PyObject *
decode_scalar(const unsigned char *value, size_t length)
{
    int64_t integer;
    uint64_t number;
    double real;
    bool truth;
    const char *text;
    size_t text_length;
    PyObject *decoded = NULL;
    if (shmconf_as_int(value, length, &integer) == SHMCONF_OK) {
        decoded = PyLong_FromLongLong(integer);
    }
    else if (shmconf_as_string(value, length, &text, &text_length) == SHMCONF_OK) {
        decoded = PyUnicode_DecodeUTF8(text, (Py_ssize_t)text_length, NULL);
    }
    else if (shmconf_as_bool(value, length, &truth) == SHMCONF_OK) {
        decoded = PyBool_FromLong(truth);
    }
    else if (shmconf_as_uint(value, length, &number) == SHMCONF_OK) {
        decoded = PyLong_FromUnsignedLongLong(number);
    }
    else if (shmconf_as_double(value, length, &real) == SHMCONF_OK) {
        decoded = PyFloat_FromDouble(real);
    }
    if (decoded == NULL) {
        PyErr_Clear(); /* no UTF-8: Python tells whoever asked */
    }
    return decoded;
}

PyObject *
find_scalar(PyObject *attachment, PyObject *path, int whole, PyObject *missing, uint64_t *version)
{
    unsigned char few[512];
    struct parts parts;
    size_t length;
    int taken;
    if (whole) {
        taken = allocate_parts(&parts, 1, 0) ? take_part(path, parts.all) : -1;
    }
    else {
        taken = take_path(path, &parts);
    }
    if (taken != 1) {
        PyErr_Clear();
        return NULL;
    }
    int result = shmconf_segment_get_at_once(((Attachment *)attachment)->segment, parts.all, parts.count, few,
                                             sizeof few, &length, version, NULL);
    free_parts(&parts);
    if (result == SHMCONF_MISSING) {
        return Py_NewRef(missing);
    }
    return result == SHMCONF_OK ? decode_scalar(few, length) : NULL;
}

PyObject *
find_in(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    struct parts parts;
    char *payload, *index;
    Py_ssize_t payload_length, index_length;
    size_t offset, length;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "find_in() takes 3 arguments, not %zd", count);
    }
    if (PyBytes_AsStringAndSize(args[0], &payload, &payload_length) != 0 ||
        PyBytes_AsStringAndSize(args[1], &index, &index_length) != 0) {
        return NULL;
    }
    int taken = take_path(args[2], &parts);
    if (taken != 1) {
        return taken < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    int result = shmconf_find(payload, (size_t)payload_length, index, (size_t)index_length, parts.all, parts.count,
                              &offset, &length);
    free_parts(&parts);
    if (result == SHMCONF_MISSING) {
        Py_RETURN_NONE;
    }
    if (result != SHMCONF_OK) {
        PyErr_SetString(PyExc_ValueError, "the payload or its index is not what a writer leaves");
        return NULL;
    }
    return PyBytes_FromStringAndSize(payload + offset, (Py_ssize_t)length);
}

/* --- the type ------------------------------------------------------------------------------------------------------ */

static PyObject *
attachment_path(Attachment *self, void *Py_UNUSED(ignored))
{
    return Py_NewRef(self->path);
}

static PyObject *
attachment_epoch(Attachment *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(shmconf_segment_epoch(self->segment));
}

static PyObject *
attachment_retries(Attachment *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(shmconf_segment_retries(self->segment));
}

static PyMethodDef attachment_methods[] = {
    {"latest", METHOD(attachment_latest), METH_NOARGS, PyDoc_STR("latest() -> (version, retired)")},
    {"is_linked", METHOD(attachment_is_linked), METH_NOARGS, PyDoc_STR("is_linked() -> bool")},
    {"heartbeat_age", METHOD(attachment_heartbeat_age), METH_NOARGS, PyDoc_STR("heartbeat_age() -> float | None")},
    {"wake_word", METHOD(attachment_wake_word), METH_NOARGS, PyDoc_STR("wake_word() -> int")},
    {"wait", METHOD(attachment_wait), METH_FASTCALL, PyDoc_STR("wait(seen, seconds)")},
    {"wait_beyond", METHOD(attachment_wait_beyond), METH_FASTCALL, PyDoc_STR("wait_beyond(after, seconds) -> int")},
    {"verify_latest", METHOD(attachment_verify_latest), METH_NOARGS, PyDoc_STR("verify_latest() -> int: the version that is whole, or 0")},
    {"copy_sections", METHOD(attachment_copy_sections), METH_NOARGS,
     PyDoc_STR("copy_sections() -> (epoch, version, published_at, payload, index, metadata) | None")},
    {"copy_metadata", METHOD(attachment_copy_metadata), METH_NOARGS,
     PyDoc_STR("copy_metadata() -> (epoch, version, published_at, metadata) | None")},
    {"copy_status", METHOD(attachment_copy_status), METH_NOARGS, PyDoc_STR("copy_status() -> bytes | None")},
    {"find", METHOD(attachment_find), METH_O,
     PyDoc_STR("find(path) -> (version, msgpack | None), or NotImplemented for a path that only Python takes")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attachment_properties[] = {
    {"path", (getter)attachment_path, NULL, PyDoc_STR("the file's path, for messages"), NULL},
    {"epoch", (getter)attachment_epoch, NULL, PyDoc_STR("the segment's epoch"), NULL},
    {"retries", (getter)attachment_retries, NULL, PyDoc_STR("tries that a publication made worthless"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot attachment_slots[] = {
    {Py_tp_doc, PyDoc_STR("Attachment(directory, named, name, patience): a trusted segment; see shmconf.opening.Attached")},
    {Py_tp_new, attachment_new},
    {Py_tp_dealloc, attachment_dealloc},
    {Py_tp_methods, attachment_methods},
    {Py_tp_getset, attachment_properties},
    {0, NULL},
};

PyType_Spec attachment_spec = {
    .name = "shmconf._native.Attachment",
    .basicsize = sizeof(Attachment),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = attachment_slots,
};
