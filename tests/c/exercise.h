/* Everything that a program can ask of a segment, whatever is in it. For a unit that holds the implementation.
 *
 * The oracle: a look-up in the segment and one in a copy of its sections give the same. Whatever else is wrong (a read
 * beyond the file, an overflow, a leak) is for the sanitizers and the kernel to see. */
#ifndef SHMCONF_TESTS_EXERCISE_H
#define SHMCONF_TESTS_EXERCISE_H

#include "part_of_item.h"
#include "shmconf.h"

#define MOST_DEPTH 6
#define MOST_LOOK_UPS 96 /* of one segment: each is linear in what hostile bytes say */

static void
insist_on(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

struct exercised {
    shmconf_segment *segment;
    struct sc_content content; /* the payload and index in copies of exactly their length */
    int look_ups, found;
};

/* What msgpack a value may be taken for. */
static void
exercise_scalars(const unsigned char *value, size_t length)
{
    int64_t integer;
    uint64_t natural;
    double number;
    bool truth;
    const char *text;
    size_t text_length;
    shmconf_as_int(value, length, &integer);
    shmconf_as_uint(value, length, &natural);
    shmconf_as_double(value, length, &number);
    shmconf_as_bool(value, length, &truth);
    if (shmconf_as_string(value, length, &text, &text_length) == SHMCONF_OK) {
        insist_on(text >= (const char *)value && text + text_length <= (const char *)value + length, "a text outside");
    }
}

static void
exercise_look_up(struct exercised *on, const shmconf_part *parts, size_t count)
{
    size_t offset, length, told;
    uint64_t version;
    on->look_ups++;
    int result = shmconf_find(on->content.payload.base, on->content.payload.length, on->content.index.base,
                              on->content.index.length, parts, count, &offset, &length);
    size_t room = result == SHMCONF_OK ? length : 0;
    unsigned char *buffer = malloc(room + 1);
    int shared = shmconf_segment_get(on->segment, parts, count, buffer, room, &told, &version, NULL);
    insist_on(shared == result, "a segment and a copy of it differ in what is there");
    if (result == SHMCONF_OK) {
        on->found++;
        insist_on(told == length && memcmp(buffer, on->content.payload.base + offset, length) == 0, "a value differs");
        exercise_scalars(buffer, length);
        if (length > 0) {
            insist_on(shmconf_segment_get(on->segment, parts, count, buffer, length - 1, &told, NULL, NULL) ==
                              SHMCONF_NO_SPACE && told == length, "a length was not told");
        }
    }
    free(buffer);
}

/* Goes down into the payload by its own keys. */
static void
exercise_below(struct exercised *on, shmconf_part *parts, size_t depth)
{
    const struct sc_view *payload = &on->content.payload;
    struct sc_item item;
    uint64_t at, length;
    if (on->look_ups >= MOST_LOOK_UPS) {
        return;
    }
    exercise_look_up(on, parts, depth);
    if (depth == MOST_DEPTH || sc_find(&on->content, parts, depth, &at, &length) != SHMCONF_OK ||
        !sc_item_at(payload, at, &item) || !sc_is_container(&item)) {
        return;
    }
    uint64_t children = item.children;
    at = item.end;
    if (item.kind == SC_LIST) {
        const uint64_t numbers[] = {0, children / 2, children - 1, children};
        for (int i = 0; i < 4; i++) {
            parts[depth] = (shmconf_part){.kind = SHMCONF_INTEGER, .number = numbers[i]};
            exercise_below(on, parts, depth + 1);
        }
        return;
    }
    for (int pair = 0; pair < 5 && (uint64_t)pair * 2 < children; pair++) {
        if (!sc_item_at(payload, at, &item)) {
            return;
        }
        parts[depth] = part_of(payload->base, &item);
        exercise_below(on, parts, depth + 1);
        if (!sc_walk(payload, at, 2, &at)) {
            return;
        }
    }
    parts[depth] = (shmconf_part){.kind = SHMCONF_TEXT, .bytes = "a", .length = 1};
    exercise_below(on, parts, depth + 1);
}

static void *
exercise_allocate(void *context, int section, size_t length)
{
    void **blocks = context;
    int place = section == SHMCONF_PAYLOAD ? 0 : section == SHMCONF_INDEX ? 1 : 2;
    free(blocks[place]);
    return blocks[place] = malloc(length == 0 ? 1 : length);
}

static void
exercise_segment(shmconf_segment *segment)
{
    unsigned char body[SHMCONF_STATUS_SIZE];
    struct exercised on = {.segment = segment};
    shmconf_part parts[MOST_DEPTH + 1];
    shmconf_snapshot copy = {0};
    void *blocks[3] = {NULL, NULL, NULL};
    size_t length;
    uint64_t version;
    shmconf_segment_status(segment, body, &length, NULL);
    insist_on(shmconf_segment_heartbeat_age(segment) >= -1, "a negative age");
    insist_on(shmconf_segment_sleep(segment, shmconf_segment_wake_word(segment) + 1, 0) == SHMCONF_OK, "sleep");
    shmconf_segment_verify(segment, &version, NULL);
    int result = shmconf_segment_copy(segment, SHMCONF_ALL, exercise_allocate, blocks, &copy, NULL);
    if (result == SHMCONF_OK) {
        insist_on(version == copy.version, "what can be copied can be verified");
        on.content = (struct sc_content){sc_private(copy.payload, copy.payload_length),
                                         sc_private(copy.index, copy.index_length)};
        exercise_below(&on, parts, 0);
    }
    else {
        parts[0] = (shmconf_part){.kind = SHMCONF_STRING, .bytes = "a", .length = 1};
        shmconf_segment_get(segment, parts, 1, body, sizeof body, &length, &version, NULL);
    }
    for (int section = 0; section < 3; section++) {
        free(blocks[section]);
    }
}

static const char *const exercise_paths[] = {"a", "db.pool.size", "map.deep.list.0", "fields.3", "version", "'", "\"\\u0061\""};

static void
exercise_reader(shmconf_reader *reader)
{
    shmconf_status status;
    shmconf_snapshot snapshot;
    shmconf_int_cell integer;
    shmconf_double_cell number;
    shmconf_bool_cell truth;
    unsigned char buffer[256];
    char text[64];
    size_t length;
    uint64_t natural;
    shmconf_segment_set_patience(reader->segment, 0);
    for (size_t i = 0; i < sizeof exercise_paths / sizeof *exercise_paths; i++) {
        const char *path = exercise_paths[i];
        const unsigned char *value;
        int64_t whole;
        double real;
        bool yes;
        int found = shmconf_get(reader, path, buffer, sizeof buffer, &length);
        shmconf_get_int(reader, path, &whole);
        shmconf_get_uint(reader, path, &natural);
        shmconf_get_double(reader, path, &real);
        shmconf_get_bool(reader, path, &yes);
        shmconf_get_string(reader, path, text, sizeof text, &length);
        shmconf_int_cell_init(&integer, reader, path);
        shmconf_double_cell_init(&number, reader, path);
        shmconf_bool_cell_init(&truth, reader, path);
        for (int twice = 0; twice < 2; twice++) {
            shmconf_int_cell_get(&integer, &whole);
            shmconf_double_cell_get(&number, &real);
            shmconf_bool_cell_get(&truth, &yes);
        }
        if (shmconf_snapshot_take(reader, &snapshot) == SHMCONF_OK) {
            size_t size;
            int in_copy = shmconf_snapshot_get(&snapshot, path, &value, &size);
            insist_on(in_copy == found || found == SHMCONF_NO_SPACE, "a snapshot differs from its segment");
        }
        shmconf_snapshot_free(&snapshot);
        shmconf_cell_release(&integer.cell);
        shmconf_cell_release(&number.cell);
        shmconf_cell_release(&truth.cell);
    }
    shmconf_status_take(reader, &status);
    insist_on(strlen(status.held) < sizeof status.held, "a digest without an end");
    shmconf_wait(reader, 0, 0, &natural);
    shmconf_wait(reader, shmconf_version(reader), 0, &natural);
    insist_on(strlen(shmconf_last_fault(reader)->text) < 512, "a fault without an end");
}

/* All of that on the segment in a file; the result of opening it as a reader does. */
static int
exercise(const char *directory, const char *name, shmconf_fault *fault)
{
    shmconf_segment *segment;
    shmconf_reader *reader;
    uint64_t version;
    int result = shmconf_segment_open(&segment, directory, true, name, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    shmconf_segment_set_patience(segment, 0);
    result = shmconf_segment_verify(segment, &version, fault);
    bool never_whole = shmconf_segment_retries(segment) > 0; /* nothing changes here, so each try would fail, each time */
    if (!never_whole) {
        exercise_segment(segment);
    }
    shmconf_segment_close(segment);
    if (result == SHMCONF_OK) {
        result = shmconf_open(&reader, name, directory, fault);
        insist_on(result == SHMCONF_OK, "what can be verified can be opened");
        exercise_reader(reader);
        shmconf_close(reader);
    }
    return result;
}

#endif
