/* Where libyaml is: in the extension module of PyYAML, or in a library that it was linked to. */
#define _GNU_SOURCE /* RTLD_NOLOAD */
#include "native.h"

#include <dlfcn.h>

#include "libyaml.h"

static void
let_go(PyObject *capsule)
{
    Libyaml *found = PyCapsule_GetPointer(capsule, LIBYAML_CAPSULE);
    dlclose(found->handle);
    PyMem_Free(found);
}

/* libyaml's functions in the shared object that `handle` is of, or false. */
static int
find_functions(Libyaml *found)
{
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"yaml_get_version", &found->get_version},
        {"yaml_parser_initialize", &found->initialize},
        {"yaml_parser_delete", &found->delete},
        {"yaml_parser_set_input_string", &found->set_input_string},
        {"yaml_parser_parse", &found->parse},
        {"yaml_event_delete", &found->delete_event},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *function = dlsym(found->handle, wanted[i].name);
        if (function == NULL) {
            return 0;
        }
        *(void **)wanted[i].place = function; /* POSIX has them of one size and kind */
    }
    int major, minor, patch;
    found->get_version(&major, &minor, &patch);
    return major == 0 && (minor == 1 || minor == 2); /* whose layout is that of libyaml.h */
}

PyObject *
libyaml(PyObject *Py_UNUSED(module), PyObject *path)
{
    PyObject *name, *capsule;
    if (!PyUnicode_FSConverter(path, &name)) {
        return NULL;
    }
    Libyaml *found = PyMem_Calloc(1, sizeof *found);
    if (found == NULL) {
        Py_DECREF(name);
        return PyErr_NoMemory();
    }
    found->handle = dlopen(PyBytes_AsString(name), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    Py_DECREF(name);
    if (found->handle == NULL || !find_functions(found)) {
        PyErr_Format(PyExc_ImportError, "%S has no libyaml of version 0.1 or 0.2 that can be called", path);
    }
    else if ((capsule = PyCapsule_New(found, LIBYAML_CAPSULE, let_go)) != NULL) {
        return capsule;
    }
    if (found->handle != NULL) {
        dlclose(found->handle);
    }
    PyMem_Free(found);
    return NULL;
}
