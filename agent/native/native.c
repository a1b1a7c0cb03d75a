/* shmconf_agent._native: the loops in which an agent would spend nearly all of its time, in C. Each has a twin in Python,
 * which does the same where this module was not built and passes the same tests; native.py says what each does. The
 * module has no state, keeps nothing between calls, and takes no lock but those of the objects it is given. */
#include "native.h"

static PyMethodDef functions[] = {
    {"libyaml", libyaml, METH_O,
     PyDoc_STR("libyaml(path): libyaml as it is loaded with the shared object at `path`; ImportError if it is not")},
    {"build", build, METH_VARARGS,
     PyDoc_STR("build(libyaml, data, limits, keys, plain, parts): the trees of a YAML text; see yaml_quick.py")},
    {"same", same, METH_VARARGS,
     PyDoc_STR("same(left, right, start, stop): whether the same objects stand there in both lists; see encode.py")},
    {"still", still, METH_VARARGS,
     PyDoc_STR("still(directory, names, answers): whether all files are as they were; see stillness.py")},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmconf_agent._native",
    .m_doc = PyDoc_STR("The agent's innermost loops; without them Python does the same."),
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
