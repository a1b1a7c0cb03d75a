/* Events to values: the scalars and the aliases of yaml_quick.c. */
#include "yaml_quick.h"

#define LONGEST_INT 18 /* digits that fit 64 bits whatever they are */

static PyObject *
scalar_text(const Loop *loop)
{
    return PyUnicode_DecodeUTF8(loop->event.data.scalar.value, (Py_ssize_t)loop->event.data.scalar.length, NULL);
}

static PyObject *
text_or_none(const char *text)
{
    return text == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(text);
}

/* The value of one with a tag or an anchor. */
static PyObject *
special_scalar(const Loop *loop)
{
    PyObject *text = scalar_text(loop);
    PyObject *anchor = text == NULL ? NULL : text_or_none(loop->event.data.scalar.anchor);
    PyObject *tag = anchor == NULL ? NULL : text_or_none(loop->event.data.scalar.tag);
    PyObject *event = NULL, *value = NULL;
    if (tag != NULL) {
        event = PyObject_CallFunction(loop->parts.scalar_event, "OO(NN)O", anchor, tag,
                                      PyBool_FromLong(loop->event.data.scalar.plain_implicit),
                                      PyBool_FromLong(loop->event.data.scalar.quoted_implicit), text);
    }
    if (event != NULL) {
        value = PyObject_CallFunctionObjArgs(loop->parts.get_scalar, event, loop->anchors, NULL);
    }
    Py_XDECREF(event);
    Py_XDECREF(tag);
    Py_XDECREF(anchor);
    Py_XDECREF(text);
    return value;
}

/* The number that the scalar is, if it is one of plain decimal digits without a leading zero that surely fits. */
static bool
is_small_int(const Loop *loop, long long *number)
{
    const char *digits = loop->event.data.scalar.value;
    size_t length = loop->event.data.scalar.length;
    if (length == 0 || length > LONGEST_INT || digits[0] == '0') {
        return false;
    }
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            return false;
        }
        *number = *number * 10 + (digits[i] - '0');
    }
    return true;
}

/* What the dictionary has under the scalar's text; it finds out itself what it does not know. */
static PyObject *
look_up(const Loop *loop, PyObject *known)
{
    PyObject *text = scalar_text(loop);
    PyObject *value = text == NULL ? NULL : PyObject_GetItem(known, text);
    Py_XDECREF(text);
    return value;
}

PyObject *
scalar_value(const Loop *loop)
{
    long long number;
    if (loop->event.data.scalar.anchor != NULL) {
        return special_scalar(loop);
    }
    if (loop->event.data.scalar.plain_implicit) {
        const char *text = loop->event.data.scalar.value;
        if (loop->event.data.scalar.length > 0 && !loop->parts.ruled[(unsigned char)text[0]]) {
            return scalar_text(loop);
        }
        return is_small_int(loop, &number) ? PyLong_FromLongLong(number) : look_up(loop, loop->plain);
    }
    /* In quotes; a lone surrogate would not have been UTF-8. */
    return loop->event.data.scalar.quoted_implicit ? scalar_text(loop) : special_scalar(loop);
}

PyObject *
scalar_key(const Loop *loop)
{
    bool bare = loop->event.data.scalar.plain_implicit && loop->event.data.scalar.anchor == NULL;
    return bare ? look_up(loop, loop->keys) : special_scalar(loop);
}

int
follow(const Loop *loop, Anchored *found)
{
    PyObject *event = PyObject_CallFunction(loop->parts.alias_event, "s", loop->event.data.alias.anchor);
    if (event == NULL) {
        return -1;
    }
    PyObject *anchored = PyObject_CallFunctionObjArgs(loop->parts.follow, event, loop->anchors, NULL);
    Py_DECREF(event);
    if (anchored == NULL) {
        return -1;
    }
    int is_good = PyArg_ParseTuple(anchored, "OLLL", &found->value, &found->nodes, &found->keys, &found->height);
    if (is_good) {
        Py_INCREF(found->value);
    }
    Py_DECREF(anchored);
    return is_good ? 0 : -1;
}
