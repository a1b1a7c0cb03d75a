/* What the units of the quick way through YAML share; yaml_quick.c says what it is. */
#ifndef SHMCONF_AGENT_YAML_QUICK_H
#define SHMCONF_AGENT_YAML_QUICK_H

#include "native.h"

#include <stdbool.h>

#include "libyaml.h"

/* What comes from yaml_quick.py, in the order of its _PARTS. */
typedef struct {
    const char *ruled;              /* for each first byte, whether a plain scalar may be something other than text */
    const char *map_tag, *list_tag; /* the tags that say what is seen anyway */
    PyObject *merge;                /* the key `<<` */
    PyObject *trouble, *too_much;   /* exceptions */
    PyObject *scalar_event, *alias_event;
    PyObject *get_scalar, *follow, *begin_anchor, *end_anchor, *get_merged, *take_turns;
} Parts;

/* A collection: yaml_quick.py says what each is, at _Frame. `key`, `merges` and `anchor` may be NULL. */
typedef struct {
    PyObject *items, *key, *merges, *anchor;
    long long pairs, height, nodes_before, keys_before;
    bool is_map;
} Frame;

/* What an alias brings in, as yaml_quick.py has it. */
typedef struct {
    PyObject *value; /* a reference of its own */
    long long nodes, keys, height;
} Anchored;

typedef struct {
    Parts parts;
    const Libyaml *libyaml;
    PyObject *keys, *plain;      /* the call's own */
    PyObject *anchors;
    long long max_nodes, max_keys, max_depth, max_documents;
    long long nodes, key_count, documents;
    Frame frame;                 /* the collection that is being filled */
    Frame *stack;                /* those that wait for one within them to end */
    Py_ssize_t depth, room;
    Event event;                 /* the last, or none */
    Parser parser;
    bool has_parser;
} Loop;

/* yaml_values.c: what the scalar that is the loop's event stands for, as a value or as a key; NULL with an exception. */
PyObject *scalar_value(const Loop *loop);
PyObject *scalar_key(const Loop *loop);
/* What the alias that is the loop's event brings in; -1 with an exception. */
int follow(const Loop *loop, Anchored *found);

#endif
