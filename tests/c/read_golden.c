/* What the C reader finds in a segment, as readers.py asks for it: argv has the directory and the segment's name, stdin
 * a msgpack array of paths, each an array of keys; stdout gets a msgpack map with the fields of readers.Reading. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include "part_of_item.h"

#define MOST_PARTS 64

static shmconf_fault fault;

static void
demand(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, fault.text);
        exit(1);
    }
}

/* --- writing msgpack ---------------------------------------------------------------------------------------------- */

static void
put(const void *bytes, size_t length)
{
    demand(fwrite(bytes, 1, length, stdout) == length, "stdout");
}

static void
put_head(unsigned char lead, uint64_t number, unsigned width)
{
    uint64_t big = __builtin_bswap64(number << (64 - 8 * width));
    put(&lead, 1);
    put(&big, width);
}

static void
put_bytes(unsigned char lead, const void *bytes, size_t length)
{
    put_head(lead, length, 4);
    put(bytes, length);
}

static void
put_text(const char *text)
{
    put_bytes(0xDB, text, strlen(text));
}

static void
put_nil(void)
{
    put("\xC0", 1);
}

static void
put_number_or_nil(bool is_there, uint64_t number)
{
    is_there ? put_head(0xCF, number, 8) : put_nil();
}

/* The value of a key of a small map of text keys, or nil. */
static void
put_value_in(const unsigned char *map, size_t map_length, const char *key)
{
    shmconf_part part = {.kind = SHMCONF_STRING, .bytes = key, .length = strlen(key)};
    size_t offset, length;
    if (map_length > 0 && shmconf_find(map, map_length, NULL, 0, &part, 1, &offset, &length) == SHMCONF_OK) {
        put(map + offset, length);
    }
    else {
        put_nil();
    }
}

/* --- what is asked ------------------------------------------------------------------------------------------------- */

static unsigned char *question;
static size_t question_length;

static void
take_question(void)
{
    size_t room = 1 << 20, got;
    question = malloc(room);
    while ((got = fread(question + question_length, 1, room - question_length, stdin)) > 0) {
        question_length += got;
        if (question_length == room) {
            question = realloc(question, room *= 2);
        }
        demand(question != NULL, "no memory");
    }
}

/* The item at *at, which moves behind it, or into it where it is an array. */
static struct sc_item
next_item(uint64_t *at)
{
    struct sc_view view = sc_private(question, question_length);
    struct sc_item item;
    demand(sc_item_at(&view, *at, &item), "the question is no msgpack");
    *at = item.end;
    return item;
}

static shmconf_part
next_part(uint64_t *at)
{
    struct sc_item item = next_item(at);
    demand(!sc_is_container(&item), "a container as a key");
    return part_of(question, &item);
}

static void
put_answer(shmconf_segment *segment, const shmconf_part *parts, size_t count)
{
    static unsigned char *buffer;
    static size_t capacity;
    size_t length;
    int result;
    while ((result = shmconf_segment_get(segment, parts, count, buffer, capacity, &length, NULL, &fault)) ==
           SHMCONF_NO_SPACE) {
        buffer = realloc(buffer, capacity = length);
        demand(buffer != NULL, "no memory");
    }
    if (result == SHMCONF_OK) {
        put_bytes(0xC6, buffer, length);
        return;
    }
    demand(result == SHMCONF_MISSING || result == SHMCONF_NOT_FOUND, "get");
    put_nil();
}

static void *
allocate(void *context, int section, size_t length)
{
    (void)context;
    (void)section;
    return malloc(length + 1);
}

int
main(int count, char **arguments)
{
    unsigned char body[SHMCONF_STATUS_SIZE];
    shmconf_snapshot note = {0};
    shmconf_segment *segment;
    shmconf_part parts[MOST_PARTS];
    size_t body_length;
    uint64_t at = 0;
    demand(count == 3, "arguments: DIRECTORY NAME");
    take_question();
    demand(shmconf_segment_open(&segment, arguments[1], true, arguments[2], &fault) == SHMCONF_OK, "open");
    demand(shmconf_segment_status(segment, body, &body_length, &fault) == SHMCONF_OK, "status");
    int noted = shmconf_segment_copy(segment, SHMCONF_METADATA, allocate, NULL, &note, &fault);
    demand(noted == SHMCONF_OK || noted == SHMCONF_NOT_FOUND, "copy");
    uint64_t latest = __atomic_load_n(shmconf_segment_latest(segment), __ATOMIC_ACQUIRE);

    put("\x87", 1);
    put_text("version");
    put_number_or_nil(true, latest & ~SHMCONF_RETIRED);
    put_text("epoch");
    put_number_or_nil(true, shmconf_segment_epoch(segment));
    put_text("retired");
    put((latest & SHMCONF_RETIRED) != 0 ? "\xC3" : "\xC2", 1);
    put_text("published_at");
    put_number_or_nil(noted == SHMCONF_OK, note.published_at);
    put_text("digest");
    put_value_in(note.metadata, note.metadata_length, "digest");
    put_text("last_error");
    put_value_in(body, body_length, "last_error");
    put_text("values");
    struct sc_item paths = next_item(&at);
    put_head(0xDD, paths.children, 4);
    for (uint64_t path = 0; path < paths.children; path++) {
        uint64_t depth = next_item(&at).children;
        demand(depth <= MOST_PARTS, "a path of too many parts");
        for (uint64_t part = 0; part < depth; part++) {
            parts[part] = next_part(&at);
        }
        put_answer(segment, parts, depth);
    }
    free((void *)(uintptr_t)note.metadata);
    free(question);
    shmconf_segment_close(segment);
    return 0;
}
