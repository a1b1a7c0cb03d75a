/* The loop of formats/yaml_quick.py (`_build`) in C, step for step, on libyaml's own events: whoever changes one changes
 * the other. What a text rarely needs (scalars with tags or anchors, aliases, merges) it leaves to the functions of that
 * room, which come with the call in `parts`, and so there is one place for each of them.
 *
 * The contract with memory: every reference that is kept is our own; borrowed ones are of the call's arguments, which the
 * caller holds. What the Loop holds is let go of in `clear`, on every way out, and so is libyaml's parser and the event
 * that it gave last. The depth of the text is never depth of the stack.
 *
 * The contract with threads: they take turns, and signals are seen to, where a function in Python is called that does
 * nothing. To release the lock and take it again would not do: who waits for it hardly ever gets it in that moment. */
#include "yaml_quick.h"

#include <string.h>

#define STRIDE 10000 /* events between two looks at the number of nodes, as in yaml_quick.py */
#define TURN 1000    /* events between two chances for other threads and for signals: a fraction of a millisecond */

static void
clear_frame(Frame *frame)
{
    Py_CLEAR(frame->items);
    Py_CLEAR(frame->key);
    Py_CLEAR(frame->merges);
    Py_CLEAR(frame->anchor);
}

/* `*place` becomes what it is given, whose reference it takes over; what was there is let go of last, since that may run
 * anything. */
static void
put(PyObject **place, PyObject *given)
{
    PyObject *before = *place;
    *place = given;
    Py_XDECREF(before);
}

static int
give_up(PyObject *error)
{
    PyErr_SetNone(error);
    return -1;
}

static int
expect_nothing(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
next_event(Loop *loop)
{
    loop->libyaml->delete_event(&loop->event); /* which leaves no event behind */
    if (!loop->libyaml->parse(&loop->parser, &loop->event)) {
        return give_up(loop->parts.trouble); /* it is the builder that says what is wrong */
    }
    return 0;
}

/* --- collections ------------------------------------------------------------------------------------------------- */

static int
add(Loop *loop, PyObject *value)
{
    Frame *frame = &loop->frame;
    return frame->is_map ? PyDict_SetItem(frame->items, frame->key, value) : PyList_Append(frame->items, value);
}

/* A collection that has ended, or an alias: `below` are its levels. */
static int
add_collection(Loop *loop, PyObject *value, long long below)
{
    Frame *frame = &loop->frame;
    if (frame->is_map && frame->key == loop->parts.merge) {
        if (frame->merges == NULL && (frame->merges = PyList_New(0)) == NULL) {
            return -1;
        }
        if (PyList_Append(frame->merges, value) < 0) {
            return -1;
        }
        below -= PyList_Check(value) ? 2 : 1; /* what is merged adds no level */
    }
    else if (add(loop, value) < 0) {
        return -1;
    }
    if (below >= frame->height) {
        frame->height = below + 1;
    }
    return 0;
}

static int
make_room(Loop *loop)
{
    if (loop->depth < loop->room) {
        return 0;
    }
    Py_ssize_t room = loop->room ? loop->room * 2 : 16;
    Frame *stack = (size_t)room > PY_SSIZE_T_MAX / sizeof(Frame)
                       ? NULL
                       : PyMem_Realloc(loop->stack, (size_t)room * sizeof(Frame));
    if (stack == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    loop->stack = stack;
    loop->room = room;
    return 0;
}

static int
begin_collection(Loop *loop)
{
    bool is_map = loop->event.type == MAPPING_START;
    const char *tag = loop->event.data.collection_start.tag, *anchor = loop->event.data.collection_start.anchor;
    Frame begun = {.is_map = is_map, .height = 1, .nodes_before = loop->nodes, .keys_before = loop->key_count};
    if (loop->depth >= loop->max_depth) {
        return give_up(loop->parts.too_much);
    }
    if (tag != NULL && strcmp(tag, "!") != 0
        && strcmp(tag, is_map ? loop->parts.map_tag : loop->parts.list_tag) != 0) {
        return give_up(loop->parts.trouble);
    }
    if (anchor != NULL) {
        begun.anchor = PyUnicode_FromString(anchor);
        if (begun.anchor == NULL
            || expect_nothing(PyObject_CallFunctionObjArgs(loop->parts.begin_anchor, begun.anchor, loop->anchors,
                                                           NULL)) < 0) {
            clear_frame(&begun);
            return -1;
        }
    }
    begun.items = is_map ? PyDict_New() : PyList_New(0);
    if (begun.items == NULL || make_room(loop) < 0) {
        clear_frame(&begun);
        return -1;
    }
    loop->stack[loop->depth++] = loop->frame;
    loop->frame = begun;
    return 0;
}

static int
end_map(Loop *loop)
{
    Frame *frame = &loop->frame;
    long long entries = PyDict_Size(frame->items);
    if (entries != frame->pairs && (frame->merges == NULL || entries + PyList_Size(frame->merges) != frame->pairs)) {
        return give_up(loop->parts.trouble); /* a duplicate key */
    }
    loop->nodes += 2 * frame->pairs;
    loop->key_count += frame->pairs;
    if (frame->merges != NULL) {
        PyObject *merged = PyObject_CallFunctionObjArgs(loop->parts.get_merged, frame->merges, frame->items, NULL);
        if (merged == NULL) {
            return -1;
        }
        put(&frame->items, merged);
    }
    return 0;
}

static int
end_collection(Loop *loop)
{
    Frame *frame = &loop->frame;
    if (loop->depth == 0) { /* no parser does that */
        return give_up(loop->parts.trouble);
    }
    if (!frame->is_map) {
        loop->nodes += PyList_Size(frame->items);
    }
    else if (end_map(loop) < 0) {
        return -1;
    }
    if (frame->anchor != NULL
        && expect_nothing(PyObject_CallFunction(loop->parts.end_anchor, "OOOLLL", loop->anchors, frame->anchor,
                                                frame->items, loop->nodes - frame->nodes_before + 1,
                                                loop->key_count - frame->keys_before, frame->height)) < 0) {
        return -1;
    }
    PyObject *value = frame->items;
    long long height = frame->height;
    frame->items = NULL;
    clear_frame(frame);
    *frame = loop->stack[--loop->depth];
    int result = add_collection(loop, value, height);
    Py_DECREF(value);
    return result;
}

static int
add_alias(Loop *loop)
{
    Anchored found;
    if (follow(loop, &found) < 0) {
        return -1;
    }
    loop->nodes += found.nodes - 1;
    loop->key_count += found.keys;
    bool too_much = loop->nodes > loop->max_nodes || loop->key_count > loop->max_keys
                    || loop->depth + found.height > loop->max_depth;
    int result = too_much ? give_up(loop->parts.too_much) : add_collection(loop, found.value, found.height);
    Py_DECREF(found.value);
    return result;
}

static int
begin_document(Loop *loop)
{
    loop->documents++;
    if (loop->documents > loop->max_documents) {
        return give_up(loop->parts.too_much);
    }
    PyObject *anchors = PyDict_New();
    if (anchors == NULL) {
        return -1;
    }
    put(&loop->anchors, anchors);
    return 0;
}

/* --- the loop ---------------------------------------------------------------------------------------------------- */

/* The key that the event is, and then the event behind it; nothing where it ends the map. */
static int
take_key(Loop *loop)
{
    PyObject *key;
    Anchored found;
    switch (loop->event.type) {
    case MAPPING_END:
        return 0;
    case SCALAR:
        key = scalar_key(loop);
        break;
    case ALIAS:
        key = follow(loop, &found) < 0 ? NULL : found.value;
        break;
    default:
        return give_up(loop->parts.trouble); /* a map or a list as a key */
    }
    if (key == NULL) {
        return -1;
    }
    put(&loop->frame.key, key);
    loop->frame.pairs++;
    return next_event(loop);
}

static int
add_scalar(Loop *loop)
{
    PyObject *value = scalar_value(loop);
    if (value == NULL) {
        return -1;
    }
    int result = add(loop, value);
    Py_DECREF(value);
    return result;
}

/* The next item of a list or pair of a map, or its end. */
static int
step(Loop *loop)
{
    if (next_event(loop) < 0 || (loop->frame.is_map && take_key(loop) < 0)) {
        return -1;
    }
    switch (loop->event.type) {
    case SCALAR:
        return add_scalar(loop);
    case MAPPING_START:
    case SEQUENCE_START:
        return begin_collection(loop);
    case MAPPING_END:
    case SEQUENCE_END:
        return end_collection(loop);
    case ALIAS:
        return add_alias(loop);
    case DOCUMENT_START:
        return begin_document(loop);
    default:
        return 0;
    }
}

static int
look_at_limits(const Loop *loop)
{
    long long nodes = loop->nodes, keys = loop->key_count;
    for (Py_ssize_t i = 0; i <= loop->depth; i++) {
        const Frame *frame = i < loop->depth ? &loop->stack[i] : &loop->frame;
        nodes += frame->is_map ? frame->pairs * 2 : PyList_Size(frame->items);
        keys += frame->is_map ? frame->pairs : 0;
    }
    return nodes > loop->max_nodes || keys > loop->max_keys ? give_up(loop->parts.too_much) : 0;
}

static int
run(Loop *loop)
{
    while (look_at_limits(loop) == 0) {
        for (int events = 0; events < STRIDE; events++) {
            if (events % TURN == 0 && expect_nothing(PyObject_CallNoArgs(loop->parts.take_turns)) < 0) {
                return -1;
            }
            if (step(loop) < 0) {
                return -1;
            }
            if (loop->event.type == STREAM_END || loop->event.type == NO_EVENT) {
                return look_at_limits(loop);
            }
        }
    }
    return -1;
}

static void
clear(Loop *loop)
{
    clear_frame(&loop->frame);
    while (loop->depth > 0) {
        clear_frame(&loop->stack[--loop->depth]);
    }
    PyMem_Free(loop->stack);
    Py_CLEAR(loop->anchors);
    if (loop->has_parser) {
        loop->libyaml->delete_event(&loop->event);
        loop->libyaml->delete(&loop->parser);
    }
    PyMem_Free(loop);
}

static int
begin(Loop *loop, PyObject *data)
{
    char *text;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(data, &text, &length) < 0) {
        return -1;
    }
    loop->frame.height = 1;
    loop->frame.items = PyList_New(0);
    loop->anchors = PyDict_New();
    if (loop->frame.items == NULL || loop->anchors == NULL) {
        return -1;
    }
    if (!loop->libyaml->initialize(&loop->parser)) {
        PyErr_NoMemory();
        return -1;
    }
    loop->has_parser = true;
    loop->libyaml->set_input_string(&loop->parser, (const unsigned char *)text, (size_t)length);
    return 0;
}

PyObject *
build(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *capsule, *data, *ruled, *values = NULL;
    Loop *loop = PyMem_Calloc(1, sizeof *loop);
    if (loop == NULL) {
        return PyErr_NoMemory();
    }
    Parts *parts = &loop->parts;
    if (PyArg_ParseTuple(args, "OS(LLLL)OO(SssOOOOOOOOOOO)", &capsule, &data, &loop->max_nodes, &loop->max_keys,
                         &loop->max_depth, &loop->max_documents, &loop->keys, &loop->plain, &ruled,
                         &parts->map_tag, &parts->list_tag, &parts->merge, &parts->trouble, &parts->too_much,
                         &parts->scalar_event, &parts->alias_event, &parts->get_scalar, &parts->follow,
                         &parts->begin_anchor, &parts->end_anchor, &parts->get_merged, &parts->take_turns)
        && (loop->libyaml = PyCapsule_GetPointer(capsule, LIBYAML_CAPSULE)) != NULL) {
        Py_ssize_t length = PyBytes_Size(ruled);
        parts->ruled = PyBytes_AsString(ruled);
        if (length != 256) {
            PyErr_SetString(PyExc_ValueError, "the table of first bytes has 256 of them");
        }
        else if (begin(loop, data) == 0 && run(loop) == 0) {
            /* The documents: what is at the bottom, where a stream that ends as it should has come back to. */
            values = Py_NewRef(loop->depth ? loop->stack[0].items : loop->frame.items);
        }
    }
    clear(loop);
    return values;
}
