/* What the units of shmconf._native share: the types that each adds to the module, and the way to Python's exceptions. */
#ifndef SHMCONF_NATIVE_H
#define SHMCONF_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "shmconf.h"

#define BULK (64 * 1024) /* bytes from which a copy lets other Python threads run */

/* Through a function pointer of no particular type, which says to the compiler that the change of type is meant. */
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

/* _attachment.c */
extern PyType_Spec attachment_spec;
PyObject *find_in(PyObject *module, PyObject *const *args, Py_ssize_t count);
/* The scalar at `path` in an Attachment's segment, straight from there: a new reference and its version. NULL without an
 * exception where Python must look: a malformed path, parts or a value of rarer types, a container, a fault; `missing`
 * where there is nothing. whole: `path` is one key, not a path. */
PyObject *find_scalar(PyObject *attachment, PyObject *path, int whole, PyObject *missing, uint64_t *version);
/* Where `latest` of an Attachment's segment lies, for who keeps the Attachment; NULL with TypeError for anything else. */
const uint64_t *attachment_latest_word(PyObject *attachment);

/* _place.c */
extern PyType_Spec place_spec;
int is_place(PyObject *object);
/* Of a Place: see place.Place.tell. No exception, no wait. */
int place_tell(PyObject *place, uint64_t version);

/* _look_ups.c */
extern PyType_Spec look_ups_spec;

#endif
