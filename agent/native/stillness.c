/* The look of stillness.py in C: an fstatat for each file of a directory, without a Python object for any of them. */
#define _GNU_SOURCE /* O_PATH */
#include "native.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_PATH
#define O_PATH 0
#endif
#ifdef __APPLE__
#define st_ctim st_ctimespec
#define st_mtim st_mtimespec
#endif

/* What the disk said of a file, as stillness.py packs it. Seconds and nanoseconds stand apart: the year 2300 is a time
 * that a file can have, and more nanoseconds from 1970 than 64 bits hold. */
typedef struct {
    int64_t changed, changed_ns, written, written_ns;
    uint64_t inode;
    int64_t size;
} Answer;

_Static_assert(sizeof(Answer) == 48, "six words without gaps, as struct packs them");

static bool
is_as_before(int place, const char *name, const Answer *before)
{
    struct stat now;
    return fstatat(place, name, &now, AT_SYMLINK_NOFOLLOW) == 0
           && now.st_ctim.tv_sec == before->changed /* which nothing but another file in its place leaves the same */
           && now.st_ctim.tv_nsec == before->changed_ns && now.st_ino == before->inode
           && now.st_mtim.tv_sec == before->written && now.st_mtim.tv_nsec == before->written_ns
           && now.st_size == before->size;
}

/* Whether all of them are; what cannot be found out is not. */
static bool
are_as_before(const char *directory, const char *names, const char *answers, Py_ssize_t count)
{
    int place = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_PATH);
    if (place < 0) {
        return false;
    }
    bool same = true;
    for (Py_ssize_t i = 0; same && i < count; i++) {
        Answer before;
        memcpy(&before, answers + i * (Py_ssize_t)sizeof before, sizeof before);
        same = is_as_before(place, names, &before);
        names += strlen(names) + 1;
    }
    close(place);
    return same;
}

static Py_ssize_t
count_names(const char *names, Py_ssize_t length)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        count += names[i] == '\0';
    }
    return count;
}

PyObject *
still(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *directory, *all_names, *all_answers;
    char *names, *answers;
    Py_ssize_t names_length, answers_length;
    bool same;
    if (!PyArg_ParseTuple(args, "O&SS", PyUnicode_FSConverter, &directory, &all_names, &all_answers)) {
        return NULL;
    }
    if (PyBytes_AsStringAndSize(all_names, &names, &names_length) < 0
        || PyBytes_AsStringAndSize(all_answers, &answers, &answers_length) < 0) {
        Py_DECREF(directory);
        return NULL;
    }
    Py_ssize_t count = count_names(names, names_length); /* each ends with a zero; so does the object itself */
    if (answers_length != count * (Py_ssize_t)sizeof(Answer)) {
        PyErr_Format(PyExc_ValueError, "%zd bytes of answers are not for %zd names", answers_length, count);
        Py_DECREF(directory);
        return NULL;
    }
    const char *path = PyBytes_AsString(directory);
    Py_BEGIN_ALLOW_THREADS
    same = are_as_before(path, names, answers, count);
    Py_END_ALLOW_THREADS
    Py_DECREF(directory);
    return PyBool_FromLong(same);
}
