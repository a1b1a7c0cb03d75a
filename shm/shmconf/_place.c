/* shmconf._native.Place: what place.Place is in Python, for look-ups that find a new version without a Python frame. The
 * contract is there; here is what a worker does once for each version that it adopts: two system calls.
 */
#include "_native.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PLACE_SIZE ((uint64_t)1 << 40)
#define NOWHERE UINT64_MAX

typedef struct {
    PyObject_HEAD
    int fd;
    uint64_t device, inode; /* of the file that fd is of */
    uint64_t start;         /* NOWHERE while none was found */
    uint64_t version;
    uint64_t length;        /* bytes that are locked; 0 for none */
} Place;

static void place_dealloc(PyObject *self);

static int
set_lock(int fd, short type, uint64_t start, uint64_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
    return fcntl(fd, F_SETLK, &lock);
}

/* The words are relaxed: they order nothing, and threads that tell at once leave what one of them told. */
int
place_tell(PyObject *object, uint64_t version)
{
    Place *self = (Place *)object;
    struct stat found;
    uint64_t length = version % PLACE_SIZE + 1;
    __atomic_store_n(&self->version, version, __ATOMIC_RELAXED);
    /* The number may be another file's by now, as after a daemon has closed everything; and nobody asks for the locks on
     * a file that was removed. */
    if (fstat(self->fd, &found) != 0 || found.st_dev != self->device || found.st_ino != self->inode
        || found.st_nlink == 0) {
        return 0;
    }
    uint64_t start = __atomic_load_n(&self->start, __ATOMIC_RELAXED);
    if (start == NOWHERE || set_lock(self->fd, F_RDLCK, start, length) != 0) {
        return 0;
    }
    uint64_t before = __atomic_exchange_n(&self->length, length, __ATOMIC_RELAXED);
    if (before > length) {
        set_lock(self->fd, F_UNLCK, start + length, before - length);
    }
    return 1;
}

int
is_place(PyObject *object)
{
    destructor dealloc = (destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc);
    return dealloc == (destructor)place_dealloc;
}

static PyObject *
place_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    int fd;
    unsigned long long device, inode;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        return PyErr_Format(PyExc_TypeError, "Place() takes no keyword arguments");
    }
    if (!PyArg_ParseTuple(args, "iKK", &fd, &device, &inode)) {
        return NULL;
    }
    allocfunc take = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Place *self = (Place *)take(type, 0);
    if (self != NULL) {
        self->fd = fd;
        self->device = device;
        self->inode = inode;
        self->start = NOWHERE;
    }
    return (PyObject *)self;
}

static void
place_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static PyObject *
place_tell_method(PyObject *self, PyObject *version)
{
    unsigned long long told = PyLong_AsUnsignedLongLong(version);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(place_tell(self, told));
}

static PyObject *
get_start(Place *self, void *Py_UNUSED(ignored))
{
    uint64_t start = __atomic_load_n(&self->start, __ATOMIC_RELAXED);
    return start == NOWHERE ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(start);
}

static int
set_start(Place *self, PyObject *value, void *Py_UNUSED(ignored))
{
    unsigned long long start = NOWHERE;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Place cannot do without its start");
        return -1;
    }
    if (value != Py_None) {
        start = PyLong_AsUnsignedLongLong(value);
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    __atomic_store_n(&self->length, 0, __ATOMIC_RELAXED); /* nothing is locked there yet */
    __atomic_store_n(&self->start, start, __ATOMIC_RELAXED);
    return 0;
}

static PyObject *
get_told(Place *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(__atomic_load_n(&self->version, __ATOMIC_RELAXED));
}

static PyMethodDef place_methods[] = {
    {"tell", place_tell_method, METH_O, PyDoc_STR("tell(version) -> bool; see shmconf.place.Place.tell")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef place_properties[] = {
    {"start", (getter)get_start, (setter)set_start, PyDoc_STR("Where it begins; None while it is nowhere."), NULL},
    {"version", (getter)get_told, NULL, PyDoc_STR("What was told last."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot place_slots[] = {
    {Py_tp_new, place_new},
    {Py_tp_dealloc, place_dealloc},
    {Py_tp_methods, place_methods},
    {Py_tp_getset, place_properties},
    {Py_tp_doc, PyDoc_STR("Place(fd, device, inode); its contract is shmconf.place.Place")},
    {0, NULL},
};

PyType_Spec place_spec = {
    .name = "shmconf._native.Place",
    .basicsize = sizeof(Place),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = place_slots,
};
