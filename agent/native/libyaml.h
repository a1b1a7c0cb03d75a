/* The part of libyaml that is used here, as its <yaml.h> declares it: the layout has been the same in all releases of
 * 0.1 and 0.2, and no others are taken. It is declared again because PyYAML brings libyaml along without the header;
 * tests/c/test_agent_native.py holds the two together. */
#ifndef SHMCONF_AGENT_LIBYAML_H
#define SHMCONF_AGENT_LIBYAML_H

#include <stddef.h>

typedef enum {
    NO_EVENT,
    STREAM_START,
    STREAM_END,
    DOCUMENT_START,
    DOCUMENT_END,
    ALIAS,
    SCALAR,
    SEQUENCE_START,
    SEQUENCE_END,
    MAPPING_START,
    MAPPING_END,
} EventType;

typedef struct {
    size_t index, line, column;
} Mark;

typedef struct {
    EventType type;
    union {
        struct {
            void *version_directive, *tag_directives_start, *tag_directives_end;
            int implicit;
        } document_start;
        struct {
            char *anchor;
        } alias;
        struct {
            char *anchor, *tag, *value;
            size_t length;
            int plain_implicit, quoted_implicit, style;
        } scalar;
        struct {
            char *anchor, *tag;
            int implicit, style;
        } collection_start;
    } data;
    Mark start, end;
} Event;

/* yaml_parser_t, of which nothing is used but its address. */
typedef union {
    max_align_t aligned;
    char room[4096]; /* it has less than 500 bytes */
} Parser;

typedef struct {
    void *handle; /* of the shared object that has it */
    void (*get_version)(int *major, int *minor, int *patch);
    int (*initialize)(Parser *parser);
    void (*delete)(Parser *parser);
    void (*set_input_string)(Parser *parser, const unsigned char *input, size_t size);
    int (*parse)(Parser *parser, Event *event);
    void (*delete_event)(Event *event);
} Libyaml;

#define LIBYAML_CAPSULE "shmconf_agent._native.libyaml"

#endif
