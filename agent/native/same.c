/* What encode.py asks of two lists: whether the same objects stand in them. */
#include "native.h"

#include <stdbool.h>

/* Where list[start:stop] ends. */
static Py_ssize_t
end_of(PyObject *list, Py_ssize_t start, Py_ssize_t stop)
{
    Py_ssize_t end = PyList_Size(list);
    end = stop < end ? stop : end;
    return start < end ? end : start;
}

/* Borrowed references will do: the objects are not looked into, and nothing else runs meanwhile but what other threads
 * do, which are not to change the lists. */
PyObject *
same(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *left, *right;
    Py_ssize_t start, stop;
    if (!PyArg_ParseTuple(args, "O!O!nn", &PyList_Type, &left, &PyList_Type, &right, &start, &stop)) {
        return NULL;
    }
    if (start < 0) {
        PyErr_SetString(PyExc_ValueError, "a list begins at 0");
        return NULL;
    }
    Py_ssize_t left_end = end_of(left, start, stop), right_end = end_of(right, start, stop);
    bool are_same = left_end == right_end;
    for (Py_ssize_t i = start; are_same && i < left_end; i++) {
        are_same = PyList_GetItem(left, i) == PyList_GetItem(right, i);
    }
    if (PyErr_Occurred()) { /* of a list that became shorter */
        return NULL;
    }
    return PyBool_FromLong(are_same);
}
