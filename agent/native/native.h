/* What the units of shmconf_agent._native share. */
#ifndef SHMCONF_AGENT_NATIVE_H
#define SHMCONF_AGENT_NATIVE_H

/* PY_SSIZE_T_CLEAN is not defined, so that a format with '#' fails wherever it is tried: compiled with the headers of 3.13,
 * for which the macro means nothing, it would fail in 3.11 and 3.12 alone, though the stable ABI is one for all. */
#include <Python.h>

/* libyaml.c */
PyObject *libyaml(PyObject *module, PyObject *path);

/* same.c */
PyObject *same(PyObject *module, PyObject *args);

/* stillness.c */
PyObject *still(PyObject *module, PyObject *args);

/* yaml_quick.c */
PyObject *build(PyObject *module, PyObject *args);

#endif
