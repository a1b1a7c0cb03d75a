/* shmconf._native, and its type Mapping: what Python cannot express about shared memory: words with acquire and release
 * order, fences, copies in whole words, and sleeping in the kernel until a word changes. The contract of every method is
 * the protocol `Mapping` in mapping.py; _pure.py is the other implementation of it, and both pass the same tests. The
 * module's other types have units of their own.
 *
 * The contract with other processes: nothing here writes unless asked to by store, store32 or write, every access is
 * inside the mapping and inside the file as last seen by fstat, and the file never shrinks. So no content of a segment,
 * hostile or torn, can make a wild read or a SIGBUS.
 *
 * The contract with other threads: `state` counts the operations in flight and remembers close(). Whoever leaves last,
 * be it close() or an operation, unmaps. No lock is taken and the GIL is not relied on, so the same code serves
 * free-threaded interpreters and operations that run without the GIL.
 */
#define _GNU_SOURCE
#include "_native.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "_index.h"
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

_Static_assert(sizeof(void *) == 8, "segments may be larger than what a 32-bit process can map");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "words shared by processes must be lock-free");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "words have no room for anything else");

#define WORD 8
#define LONGEST_WAIT 1e9           /* seconds */
#define CLOSED UINT64_C(1)         /* in `state`, beside the number of operations in flight times two */
#define ONE_OPERATION UINT64_C(2)

typedef struct {
    PyObject_HEAD
    unsigned char *base;
    Py_ssize_t length;
    int fd;                        /* of our own, for fstat */
    bool writable;
    unsigned generation;           /* of the process that mapped it, see `forks` */
    _Atomic uint64_t known;        /* bytes that the file is known to have; it never shrinks */
    _Atomic uint64_t state;
} Mapping;

/* How many forks lie between this process and the one that loaded the module: a writable mapping is not there in a
 * child, and something else may be at its addresses, so there it must be neither used nor unmapped. */
static unsigned forks = 0;

static void count_fork(void) { forks++; }

static bool
is_inherited(const Mapping *self)
{
    return self->writable && self->generation != forks;
}

/* --- life ------------------------------------------------------------------------------------------------------- */

static void
release(Mapping *self)
{
    if (!is_inherited(self)) {
        munmap(self->base, (size_t)self->length);
    }
    close(self->fd);
}

static void
leave(Mapping *self)
{
    /* acq_rel: all accesses of every operation come before the unmapping by whoever is last. */
    if (atomic_fetch_sub_explicit(&self->state, ONE_OPERATION, memory_order_acq_rel) == (CLOSED | ONE_OPERATION)) {
        release(self);
    }
}

static bool
enter(Mapping *self)
{
    uint64_t state = atomic_load_explicit(&self->state, memory_order_relaxed);
    do {
        if (state & CLOSED) {
            PyErr_SetString(PyExc_ValueError, "the mapping is closed");
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&self->state, &state, state + ONE_OPERATION,
                                                    memory_order_acquire, memory_order_relaxed));
    if (is_inherited(self)) {
        leave(self);
        PyErr_SetString(PyExc_ValueError, "a writable mapping belongs to the process that made it, not to its children");
        return false;
    }
    return true;
}

static void
shut(Mapping *self)
{
    if (atomic_fetch_or_explicit(&self->state, CLOSED, memory_order_acq_rel) == 0) {
        release(self);
    }
}

static PyObject *
mapping_close(Mapping *self, PyObject *Py_UNUSED(ignored))
{
    shut(self);
    Py_RETURN_NONE;
}

static void
mapping_dealloc(Mapping *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->base != NULL) {
        shut(self);
    }
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static PyObject *
mapping_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "length", "writable", NULL};
    int fd, writable = 0;
    PyObject *asked;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO|$p:Mapping", names, &fd, &asked, &writable)) {
        return NULL;
    }
    Py_ssize_t length = PyNumber_AsSsize_t(asked, PyExc_ValueError);
    if (length == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (length <= 0 || length % WORD != 0) {
        PyErr_Format(PyExc_ValueError, "the length of a mapping is a multiple of 8 above 0, not %zd", length);
        return NULL;
    }
    struct stat status;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    void *base = MAP_FAILED;
    if (fstat(own, &status) == 0) {
        base = mmap(NULL, (size_t)length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, own, 0);
    }
    if (base == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        close(own);
        return NULL;
    }
#ifdef MADV_DONTFORK
    if (writable && madvise(base, (size_t)length, MADV_DONTFORK) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        munmap(base, (size_t)length);
        close(own);
        return NULL;
    }
#endif
    allocfunc take = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Mapping *self = (Mapping *)take(type, 0);
    if (self == NULL) {
        munmap(base, (size_t)length);
        close(own);
        return NULL;
    }
    self->base = base;
    self->length = length;
    self->fd = own;
    self->writable = writable != 0;
    self->generation = forks;
    atomic_init(&self->known, (uint64_t)status.st_size);
    atomic_init(&self->state, 0);
    return (PyObject *)self;
}

/* --- bounds ----------------------------------------------------------------------------------------------------- */

/* The address of `span` bytes at `offset`, or NULL with an exception; only for operations that have entered. */
static unsigned char *
locate(Mapping *self, Py_ssize_t offset, Py_ssize_t span, Py_ssize_t alignment)
{
    if (offset < 0 || offset > self->length || span > self->length - offset) {
        PyErr_Format(PyExc_IndexError, "%zd bytes at %zd are not within the mapping of %zd", span, offset, self->length);
        return NULL;
    }
    if (offset % alignment != 0) {
        PyErr_Format(PyExc_ValueError, "offset %zd is not a multiple of %zd", offset, alignment);
        return NULL;
    }
    uint64_t end = (uint64_t)offset + (uint64_t)span;
    if (end > atomic_load_explicit(&self->known, memory_order_relaxed)) {
        struct stat status;
        if (fstat(self->fd, &status) != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return NULL;
        }
        if (end > (uint64_t)status.st_size) {
            PyErr_Format(PyExc_IndexError, "%zd bytes at %zd are not within the file of %lld", span, offset,
                         (long long)status.st_size);
            return NULL;
        }
        /* Relaxed, and a race with an older size only costs another fstat: the file does not shrink. */
        atomic_store_explicit(&self->known, (uint64_t)status.st_size, memory_order_relaxed);
    }
    return self->base + offset;
}

/* As `locate`, for an offset still in Python's hands. */
static unsigned char *
locate_word(Mapping *self, PyObject *where, Py_ssize_t size)
{
    Py_ssize_t offset = PyNumber_AsSsize_t(where, PyExc_IndexError);
    if (offset == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return locate(self, offset, size, size);
}

/* Bytes of the whole words that `length` bytes touch. */
static Py_ssize_t
whole_words(Py_ssize_t length)
{
    return length > PY_SSIZE_T_MAX - WORD ? PY_SSIZE_T_MAX / WORD * WORD : (length + WORD - 1) / WORD * WORD;
}

static bool
refuses_stores(const Mapping *self)
{
    if (!self->writable) {
        PyErr_SetString(PyExc_TypeError, "the mapping is read-only");
    }
    return !self->writable;
}

static bool
has_arguments(Py_ssize_t given, Py_ssize_t wanted, const char *method)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", method, wanted, given);
    }
    return given == wanted;
}

/* An unsigned 32-bit number, or false with an exception. */
static bool
take_uint32(PyObject *number, uint32_t *value)
{
    unsigned long wide = PyLong_AsUnsignedLong(number);
    if (wide == (unsigned long)-1 && PyErr_Occurred()) {
        return false;
    }
    if (wide > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the value does not fit a 32-bit word");
        return false;
    }
    *value = (uint32_t)wide;
    return true;
}

/* --- words ------------------------------------------------------------------------------------------------------ */

static PyObject *
mapping_load(Mapping *self, PyObject *offset)
{
    PyObject *result = NULL;
    if (!enter(self)) {
        return NULL;
    }
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)locate_word(self, offset, 8);
    if (word != NULL) {
        /* Acquire: pairs with the release in mapping_store, in the process that wrote the word. */
        result = PyLong_FromUnsignedLongLong(atomic_load_explicit(word, memory_order_acquire));
    }
    leave(self);
    return result;
}

static PyObject *
mapping_load32(Mapping *self, PyObject *offset)
{
    PyObject *result = NULL;
    if (!enter(self)) {
        return NULL;
    }
    const _Atomic uint32_t *word = (const _Atomic uint32_t *)locate_word(self, offset, 4);
    if (word != NULL) {
        /* Acquire: pairs with the release in mapping_store32. */
        result = PyLong_FromUnsignedLong(atomic_load_explicit(word, memory_order_acquire));
    }
    leave(self);
    return result;
}

static PyObject *
mapping_store(Mapping *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *result = NULL;
    if (!has_arguments(count, 2, "store") || !enter(self)) {
        return NULL;
    }
    _Atomic uint64_t *word = NULL;
    if (!refuses_stores(self)) {
        word = (_Atomic uint64_t *)locate_word(self, args[0], 8);
    }
    if (word != NULL) {
        unsigned long long value = PyLong_AsUnsignedLongLong(args[1]);
        if (value != (unsigned long long)-1 || !PyErr_Occurred()) {
            /* Release: whoever loads this value (mapping_load, acquire) sees all that was stored before it. */
            atomic_store_explicit(word, value, memory_order_release);
            result = Py_NewRef(Py_None);
        }
    }
    leave(self);
    return result;
}

static PyObject *
mapping_store32(Mapping *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *result = NULL;
    uint32_t value;
    if (!has_arguments(count, 2, "store32") || !enter(self)) {
        return NULL;
    }
    _Atomic uint32_t *word = NULL;
    if (!refuses_stores(self)) {
        word = (_Atomic uint32_t *)locate_word(self, args[0], 4);
    }
    if (word != NULL && take_uint32(args[1], &value)) {
        /* Release: pairs with the acquire in mapping_load32. */
        atomic_store_explicit(word, value, memory_order_release);
        result = Py_NewRef(Py_None);
    }
    leave(self);
    return result;
}

static PyObject *
mapping_fence(Mapping *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    /* Pairs with itself in another process. The writer's, between a slot's odd counter and the payload, keeps the
     * relaxed stores of mapping_write behind that counter; the reader's, between the relaxed loads of mapping_read and
     * its second look at the counter, keeps those loads before it. So a reader that copied anything of a new payload
     * also sees the odd counter. */
    atomic_thread_fence(memory_order_seq_cst);
    Py_RETURN_NONE;
}

/* --- copies ----------------------------------------------------------------------------------------------------- */

/* Both copies go by whole words of ordinary, relaxed accesses, never by memcpy on the shared side: for large blocks
 * that uses non-temporal stores, which may pass the odd counter stored before them, and the racing would be undefined. */

static void
copy_out(char *to, const unsigned char *shared, Py_ssize_t length)
{
    const _Atomic uint64_t *words = (const _Atomic uint64_t *)shared;
    Py_ssize_t whole = length / WORD;
    for (Py_ssize_t i = 0; i < whole; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);
        memcpy(to + i * WORD, &word, WORD);
    }
    if (length % WORD != 0) {
        uint64_t word = atomic_load_explicit(&words[whole], memory_order_relaxed);
        memcpy(to + whole * WORD, &word, (size_t)(length % WORD));
    }
}

static void
copy_in(unsigned char *shared, const char *from, Py_ssize_t length)
{
    _Atomic uint64_t *words = (_Atomic uint64_t *)shared;
    Py_ssize_t whole = length / WORD;
    for (Py_ssize_t i = 0; i < whole; i++) {
        uint64_t word;
        memcpy(&word, from + i * WORD, WORD);
        atomic_store_explicit(&words[i], word, memory_order_relaxed);
    }
    if (length % WORD != 0) {
        uint64_t word = 0;
        memcpy(&word, from + whole * WORD, (size_t)(length % WORD));
        atomic_store_explicit(&words[whole], word, memory_order_relaxed);
    }
}

static PyObject *
mapping_read(Mapping *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *copy = NULL;
    if (!has_arguments(count, 2, "read") || !enter(self)) {
        return NULL;
    }
    Py_ssize_t offset = PyNumber_AsSsize_t(args[0], PyExc_IndexError);
    Py_ssize_t length = offset == -1 && PyErr_Occurred() ? 0 : PyNumber_AsSsize_t(args[1], PyExc_IndexError);
    if (PyErr_Occurred()) {
        goto done;
    }
    if (length < 0) {
        PyErr_Format(PyExc_ValueError, "a length of %zd is negative", length);
        goto done;
    }
    const unsigned char *shared = locate(self, offset, whole_words(length), WORD);
    if (shared == NULL || (copy = PyBytes_FromStringAndSize(NULL, length)) == NULL) {
        goto done;
    }
    char *to = PyBytes_AsString(copy);
    if (length >= BULK) {
        Py_BEGIN_ALLOW_THREADS
        copy_out(to, shared, length);
        Py_END_ALLOW_THREADS
    }
    else {
        copy_out(to, shared, length);
    }
done:
    leave(self);
    return copy;
}

static PyObject *
mapping_write(Mapping *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *result = NULL;
    Py_buffer data;
    if (!has_arguments(count, 2, "write") || !enter(self)) {
        return NULL;
    }
    if (refuses_stores(self) || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) != 0) {
        leave(self);
        return NULL;
    }
    Py_ssize_t offset = PyNumber_AsSsize_t(args[0], PyExc_IndexError);
    if (offset != -1 || !PyErr_Occurred()) {
        unsigned char *shared = locate(self, offset, whole_words(data.len), WORD);
        if (shared != NULL) {
            if (data.len >= BULK) {
                Py_BEGIN_ALLOW_THREADS
                copy_in(shared, data.buf, data.len);
                Py_END_ALLOW_THREADS
            }
            else {
                copy_in(shared, data.buf, data.len);
            }
            result = Py_NewRef(Py_None);
        }
    }
    PyBuffer_Release(&data);
    leave(self);
    return result;
}

/* --- waiting ---------------------------------------------------------------------------------------------------- */

static struct timespec
as_timespec(double seconds)
{
    double whole = floor(seconds);
    return (struct timespec){.tv_sec = (time_t)whole, .tv_nsec = (long)((seconds - whole) * 1e9)};
}

/* Sleeps until a wake-up, another value, a signal or the timeout. Returns 0 or an errno that is a fault. */
static int
sleep_while(_Atomic uint32_t *word, uint32_t expected, double seconds)
{
#ifdef __linux__
    /* Not FUTEX_PRIVATE_FLAG: the waker is another process. The kernel orders the comparison against the waker's
     * store, so no wake-up is lost between the caller's load of the word and this sleep. */
    struct timespec timeout = as_timespec(seconds);
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, &timeout, NULL, 0) == 0) {
        return 0;
    }
    return errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT ? 0 : errno;
#else
    const double slice = 0.001;
    while (seconds > 0 && atomic_load_explicit(word, memory_order_relaxed) == expected) {
        struct timespec pause = as_timespec(seconds < slice ? seconds : slice);
        if (nanosleep(&pause, NULL) != 0) {
            break;
        }
        seconds -= slice;
    }
    return 0;
#endif
}

static PyObject *
mapping_wait(Mapping *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *result = NULL;
    uint32_t expected;
    if (!has_arguments(count, 3, "wait") || !enter(self)) {
        return NULL;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)locate_word(self, args[0], 4);
    if (word == NULL || !take_uint32(args[1], &expected)) {
        goto done;
    }
    double seconds = PyFloat_AsDouble(args[2]);
    if (seconds == -1.0 && PyErr_Occurred()) {
        goto done;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds, not nan");
        goto done;
    }
    seconds = seconds < 0 ? 0 : seconds > LONGEST_WAIT ? LONGEST_WAIT : seconds;
    int fault;
    Py_BEGIN_ALLOW_THREADS
    fault = sleep_while(word, expected, seconds);
    Py_END_ALLOW_THREADS
    if (fault != 0) {
        errno = fault;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    else if (PyErr_CheckSignals() == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    leave(self);
    return result;
}

static PyObject *
mapping_wake(Mapping *self, PyObject *offset)
{
    PyObject *result = NULL;
    if (!enter(self)) {
        return NULL;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)locate_word(self, offset, 4);
    if (word != NULL) {
#ifdef __linux__
        long woken = syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        result = woken < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(woken);
#else
        result = Py_NewRef(Py_None); /* waiters poll the word */
#endif
    }
    leave(self);
    return result;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

static PyObject *
build_index(PyObject *Py_UNUSED(module), PyObject *payload)
{
    char *bytes; /* those of a bytes object, which no other thread can change while the GIL is released */
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(payload, &bytes, &length) != 0) {
        return NULL;
    }
    unsigned char *index;
    size_t index_length;
    int outcome;
    if (length >= BULK) {
        Py_BEGIN_ALLOW_THREADS
        outcome = shmconf_index_build((const unsigned char *)bytes, (size_t)length, &index, &index_length);
        Py_END_ALLOW_THREADS
    }
    else {
        outcome = shmconf_index_build((const unsigned char *)bytes, (size_t)length, &index, &index_length);
    }
    if (outcome == SHMCONF_INDEX_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    if (outcome != SHMCONF_INDEX_BUILT) {
        PyErr_SetString(PyExc_ValueError, "the payload is not one msgpack document with scalars as keys");
        return NULL;
    }
    PyObject *built = PyBytes_FromStringAndSize((const char *)index, (Py_ssize_t)index_length);
    free(index);
    return built;
}

/* --- the module ------------------------------------------------------------------------------------------------- */

static PyObject *
mapping_length(Mapping *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(self->length);
}

static PyObject *
mapping_writable(Mapping *self, void *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->writable);
}

static PyMethodDef mapping_methods[] = {
    {"load", METHOD(mapping_load), METH_O, PyDoc_STR("load(offset) -> int: a 64-bit word, acquire")},
    {"store", METHOD(mapping_store), METH_FASTCALL, PyDoc_STR("store(offset, value): a 64-bit word, release")},
    {"load32", METHOD(mapping_load32), METH_O, PyDoc_STR("load32(offset) -> int: a 32-bit word, acquire")},
    {"store32", METHOD(mapping_store32), METH_FASTCALL, PyDoc_STR("store32(offset, value): a 32-bit word, release")},
    {"read", METHOD(mapping_read), METH_FASTCALL, PyDoc_STR("read(offset, length) -> bytes: a copy in whole words")},
    {"write", METHOD(mapping_write), METH_FASTCALL, PyDoc_STR("write(offset, data): in whole words, zeros at the end")},
    {"fence", METHOD(mapping_fence), METH_NOARGS, PyDoc_STR("fence(): a full fence")},
    {"wait", METHOD(mapping_wait), METH_FASTCALL,
     PyDoc_STR("wait(offset, expected, timeout): sleeps while the 32-bit word is expected, timeout seconds at most")},
    {"wake", METHOD(mapping_wake), METH_O, PyDoc_STR("wake(offset) -> int | None: wakes all who wait there")},
    {"close", METHOD(mapping_close), METH_NOARGS, PyDoc_STR("close(): lets go of the memory; may be repeated")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef mapping_properties[] = {
    {"length", (getter)mapping_length, NULL, PyDoc_STR("bytes mapped"), NULL},
    {"writable", (getter)mapping_writable, NULL, PyDoc_STR("whether stores are allowed"), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, PyDoc_STR("Mapping(fd, length, *, writable=False): a shared file as words; see shmconf.mapping.Mapping")},
    {Py_tp_new, mapping_new},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_tp_methods, mapping_methods},
    {Py_tp_getset, mapping_properties},
    {0, NULL},
};

static PyType_Spec mapping_spec = {
    .name = "shmconf._native.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapping_slots,
};

static pthread_once_t forks_are_counted = PTHREAD_ONCE_INIT;
static int forks_fault = 0;

static void
start_counting_forks(void)
{
    forks_fault = pthread_atfork(NULL, NULL, count_fork);
}

static int
module_exec(PyObject *module)
{
    pthread_once(&forks_are_counted, start_counting_forks);
    if (forks_fault != 0) {
        errno = forks_fault;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyType_Spec *const specs[] = {&mapping_spec, &attachment_spec, &place_spec, &look_ups_spec};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int result = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

static PyMethodDef module_functions[] = {
    {"build_index", build_index, METH_O, PyDoc_STR("build_index(payload) -> bytes; see shmconf.index.build_index")},
    {"find_in", METHOD(find_in), METH_FASTCALL,
     PyDoc_STR("find_in(payload, index, path) -> msgpack | None, or NotImplemented for a path that only Python takes")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmconf._native",
    .m_doc = PyDoc_STR("The native mapping; its contract is shmconf.mapping.Mapping."),
    .m_methods = module_functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
