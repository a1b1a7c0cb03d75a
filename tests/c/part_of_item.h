/* Keys of a document as parts of paths. For a unit that holds the implementation of shmconf.h. */
#ifndef SHMCONF_TESTS_PART_OF_ITEM_H
#define SHMCONF_TESTS_PART_OF_ITEM_H

#include "shmconf.h"

/* A key as a part of a path; `document` lives as long as the part. */
static shmconf_part
part_of(const unsigned char *document, const struct sc_item *item)
{
    shmconf_part part = {.bytes = (const char *)document + item->body, .length = item->length, .number = item->number};
    switch (item->kind) {
    case SC_NIL:
        part.kind = SHMCONF_NIL;
        break;
    case SC_BOOL:
        part.kind = SHMCONF_BOOLEAN;
        break;
    case SC_POSITIVE:
    case SC_NEGATIVE:
        part.kind = SHMCONF_INTEGER;
        part.negative = item->kind == SC_NEGATIVE;
        break;
    case SC_REAL:
        part.kind = SHMCONF_FLOAT;
        part.real = item->real;
        break;
    case SC_BINARY:
        part.kind = SHMCONF_BINARY;
        break;
    case SC_EXTENSION:
        part.kind = SHMCONF_EXTENSION;
        part.extension = item->extension;
        break;
    default: /* of a container, what makes no key */
        part.kind = SHMCONF_STRING;
        break;
    }
    if (item->kind != SC_STRING && item->kind != SC_BINARY && item->kind != SC_EXTENSION) {
        part.bytes = NULL;
        part.length = 0;
    }
    return part;
}

#endif
