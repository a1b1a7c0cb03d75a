/* A reader of the stress test in C: reads without a pause and checks all that it gets.
 *
 * argv: the runtime directory, what to do (points, cells or snapshots), and a file for what was seen. The rules by which
 * every byte of a version follows from its number are those of tests/system/stress_document.py, the record of what was
 * seen is that of stress_progress.py. It ends only by a failed check or a signal.
 */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include <inttypes.h>

enum { FEW = 300, LONGEST_WINDOW = 5000, LARGEST = 8500000 };

/* stress_progress.NAMES */
static struct {
    uint64_t verified, points, containers, snapshots, retries, lapped, grown, takeovers, epochs, last;
} seen;

static shmconf_reader *config;
static uint64_t floor_version; /* no version below is seen again */
static int record;
static uint64_t chance;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "stress_reader.c:%d: %s: ", __LINE__, #condition);                                         \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, " (%s)\n", shmconf_last_fault(config)->text);                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t
draw(uint64_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

/* --- what a version holds ---------------------------------------------------------------------------------------- */

static uint64_t
wide(uint64_t version)
{
    return version * UINT64_C(0x9E3779B97F4A7C15);
}

static uint64_t
size_of(uint64_t version)
{
    static const uint64_t most[] = {34, 46, 54, 58, 60, 62, 64};
    static const uint64_t sizes[] = {0, 600, 5000, 50000, 500000, 2000000, LARGEST};
    static const uint64_t until[] = {60, 150, 300, 450, 600, 1200};
    int drawn = 0, limit = 0;
    while (wide(version) >> 58 >= most[drawn]) {
        drawn++;
    }
    while (version % 1200 >= until[limit]) {
        limit++;
    }
    return sizes[drawn] < sizes[limit + 1] ? sizes[drawn] : sizes[limit + 1];
}

static uint64_t
services(uint64_t version)
{
    return size_of(version) / 100 < FEW ? size_of(version) / 100 : FEW;
}

/* --- what was read ------------------------------------------------------------------------------------------------ */

static uint64_t
current(void)
{
    uint64_t version = shmconf_version(config);
    CHECK(version >= floor_version, "version %" PRIu64 " after %" PRIu64, version, floor_version);
    return version;
}

/* Whether a version between the two, of which few are looked at where a stop made them many, has this. */
static bool
any_between(uint64_t before, uint64_t after, bool (*has)(uint64_t version, uint64_t number), uint64_t number)
{
    for (uint64_t version = before; version <= after; version++) {
        if (version == before + LONGEST_WINDOW && version + LONGEST_WINDOW < after) {
            version = after - LONGEST_WINDOW;
        }
        if (has(version, number)) {
            return true;
        }
    }
    return false;
}

static bool
lacks_only(uint64_t version, uint64_t number)
{
    return version % 3 != number;
}

static bool
lacks_service(uint64_t version, uint64_t number)
{
    return services(version) <= number;
}

/* What was read is of `version`, which was the latest when the read began or later. */
static void
note(const char *what, uint64_t version, uint64_t before)
{
    uint64_t after = current();
    CHECK(before <= version && version <= after, "%s of version %" PRIu64 ", read between %" PRIu64 " and %" PRIu64, what,
          version, before, after);
    floor_version = version;
    seen.verified++;
    seen.points++;
}

static void
note_missing(const char *what, int result, uint64_t before, bool (*lacks)(uint64_t, uint64_t), uint64_t number)
{
    uint64_t after = current();
    CHECK(result == SHMCONF_MISSING, "%s: %s", what, shmconf_describe(result));
    CHECK(any_between(before, after, lacks, number), "%s is missing between %" PRIu64 " and %" PRIu64, what, before,
          after);
    seen.verified++;
    seen.points++;
}

static void
check_fill(const unsigned char *bytes, uint64_t length, uint64_t version)
{
    CHECK(length == size_of(version) / 8 * 8, "version %" PRIu64 " has %" PRIu64 " bytes of filling", version, length);
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word;
        memcpy(&word, bytes + at, 8);
        CHECK(word == version, "the filling of version %" PRIu64 " is torn at %" PRIu64, version, at);
    }
}

/* The bytes of a msgpack binary; NULL for anything else. */
static const unsigned char *
binary(const unsigned char *value, size_t length, uint64_t *size)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item) || item.kind != SC_BINARY) {
        return NULL;
    }
    *size = item.length;
    return value + item.body;
}

/* A msgpack integer behind a head, at the end of a value. */
static uint64_t
integer_behind(const char *what, const unsigned char *value, size_t length, const char *head, size_t head_length)
{
    int64_t number = -1;
    CHECK(length > head_length && memcmp(value, head, head_length) == 0, "%s has another head", what);
    CHECK(shmconf_as_int(value + head_length, length - head_length, &number) == SHMCONF_OK, "%s ends otherwise", what);
    return (uint64_t)number;
}

/* --- point look-ups ------------------------------------------------------------------------------------------------ */

static void
read_integer(const char *path, int64_t offset)
{
    int64_t value;
    uint64_t before = current();
    int result = shmconf_get_int(config, path, &value);
    CHECK(result == SHMCONF_OK, "%s: %s", path, shmconf_describe(result));
    note(path, (uint64_t)(value - offset), before);
}

static void
read_texts(void)
{
    char text[32], wanted[32];
    size_t length;
    uint64_t before = current();
    int result = shmconf_get_string(config, "text", text, sizeof text, &length);
    CHECK(result == SHMCONF_OK && length == 20, "text: %s", shmconf_describe(result));
    note("text", strtoull(text, NULL, 10), before);
    before = current();
    result = shmconf_get_string(config, "services.s250.name", text, sizeof text, NULL);
    if (result != SHMCONF_OK) {
        note_missing("services.s250.name", result, before, lacks_service, 250);
        return;
    }
    CHECK(memcmp(text, "s250-", 5) == 0, "%s", text);
    uint64_t version = strtoull(text + 5, NULL, 10);
    snprintf(wanted, sizeof wanted, "s250-%" PRIu64, version);
    CHECK(strcmp(text, wanted) == 0, "%s", text);
    note("services.s250.name", version, before);
}

static void
read_others(void)
{
    double real;
    bool even;
    uint64_t number, before = current();
    int64_t port;
    int result = shmconf_get_double(config, "real", &real);
    CHECK(result == SHMCONF_OK, "real: %s", shmconf_describe(result));
    note("real", (uint64_t)(real - 0.5), before);
    CHECK(real == (double)floor_version + 0.5, "%f", real);
    before = current();
    result = shmconf_get_bool(config, "even", &even);
    CHECK(result == SHMCONF_OK, "even: %s", shmconf_describe(result));
    CHECK(even == (before % 2 == 0) || current() > before, "even of version %" PRIu64, before);
    before = current();
    result = shmconf_get_uint(config, "wide", &number);
    CHECK(result == SHMCONF_OK, "wide: %s", shmconf_describe(result));
    /* 0x9E3779B97F4A7C15 is odd, so it has an inverse modulo 2^64. */
    note("wide", number * UINT64_C(0xF1DE83E19937733D), before);
    static const char *const only[] = {"only0", "only1", "only2"};
    uint64_t third = draw(3);
    before = current();
    result = shmconf_get_int(config, only[third], &port);
    if (result == SHMCONF_OK) {
        CHECK((uint64_t)port % 3 == third, "%s is %" PRId64, only[third], port);
        note(only[third], (uint64_t)port, before);
    }
    else {
        note_missing(only[third], result, before, lacks_only, third);
    }
    before = current();
    result = shmconf_get_int(config, "services.s3.port", &port);
    if (result == SHMCONF_OK) {
        note("services.s3.port", (uint64_t)port - 3, before);
    }
    else {
        note_missing("services.s3.port", result, before, lacks_service, 3);
    }
    CHECK(shmconf_get_int(config, "no.such", &port) == SHMCONF_MISSING, "no.such");
    CHECK(shmconf_get_int(config, "text", &port) == SHMCONF_WRONG_TYPE, "text");
}

/* Maps, lists and the longest value, as msgpack. */
static void
read_containers(unsigned char *buffer, size_t capacity)
{
    size_t length;
    uint64_t size, before = current();
    int result = shmconf_get(config, "db", buffer, capacity, &length);
    CHECK(result == SHMCONF_OK, "db: %s", shmconf_describe(result));
    note("db", integer_behind("db", buffer, length, "\x81\xA4pool\x81\xA4size", 12), before);
    before = current();
    result = shmconf_get(config, "db.pool", buffer, 3, &length);
    CHECK(result == SHMCONF_NO_SPACE && length >= 7, "db.pool: %s", shmconf_describe(result));
    before = current();
    result = shmconf_get(config, "fill", buffer, capacity, &length);
    if (result == SHMCONF_OK) {
        uint64_t version;
        const unsigned char *fill = binary(buffer, length, &size);
        CHECK(fill != NULL && size >= 8, "fill is something else");
        memcpy(&version, fill, 8);
        check_fill(fill, size, version);
        note("fill", version, before);
    }
    else {
        note_missing("fill", result, before, lacks_service, 0);
    }
    seen.containers += 2;
}

/* --- cells --------------------------------------------------------------------------------------------------------- */

static void
read_cells(uint64_t times)
{
    shmconf_int_cell version_cell, size_cell, only_cell, text_cell;
    shmconf_double_cell real_cell;
    shmconf_bool_cell even_cell;
    int64_t value;
    double real;
    bool even;
    shmconf_int_cell_init(&version_cell, config, "version");
    shmconf_int_cell_init(&size_cell, config, "db.pool.size");
    shmconf_int_cell_init(&only_cell, config, "only1");
    shmconf_int_cell_init(&text_cell, config, "text");
    shmconf_double_cell_init(&real_cell, config, "real");
    shmconf_bool_cell_init(&even_cell, config, "even");
    for (; times > 0; times--) {
        uint64_t before = current();
        int result = shmconf_int_cell_get(&version_cell, &value);
        CHECK(result == SHMCONF_OK, "version: %s", shmconf_describe(result));
        note("version", (uint64_t)value, before);
        before = current();
        result = shmconf_int_cell_get(&size_cell, &value);
        CHECK(result == SHMCONF_OK, "db.pool.size: %s", shmconf_describe(result));
        note("db.pool.size", (uint64_t)value, before);
        before = current();
        result = shmconf_double_cell_get(&real_cell, &real);
        CHECK(result == SHMCONF_OK, "real: %s", shmconf_describe(result));
        note("real", (uint64_t)(real - 0.5), before);
        before = current();
        result = shmconf_int_cell_get(&only_cell, &value);
        if (result == SHMCONF_OK) {
            CHECK(value % 3 == 1, "only1 is %" PRId64, value);
            note("only1", (uint64_t)value, before);
        }
        else {
            CHECK(value == 0, "a missing value is 0");
            note_missing("only1", result, before, lacks_only, 1);
        }
        before = current();
        result = shmconf_bool_cell_get(&even_cell, &even);
        CHECK(result == SHMCONF_OK, "even: %s", shmconf_describe(result));
        CHECK(even == (before % 2 == 0) || current() > before, "even of version %" PRIu64, before);
        CHECK(shmconf_int_cell_get(&text_cell, &value) == SHMCONF_WRONG_TYPE && value == 0, "text");
    }
    shmconf_cell_release(&only_cell.cell);
    shmconf_cell_release(&version_cell.cell);
    shmconf_cell_release(&even_cell.cell);
    shmconf_cell_release(&real_cell.cell);
    shmconf_cell_release(&text_cell.cell);
    shmconf_cell_release(&size_cell.cell);
    shmconf_follow(config);
}

/* --- snapshots ------------------------------------------------------------------------------------------------------ */

static uint64_t
integer_in(const shmconf_snapshot *snapshot, const char *path)
{
    const unsigned char *value;
    size_t length;
    int64_t number;
    int result = shmconf_snapshot_get(snapshot, path, &value, &length);
    CHECK(result == SHMCONF_OK && shmconf_as_int(value, length, &number) == SHMCONF_OK, "%s of version %" PRIu64, path,
          snapshot->version);
    return (uint64_t)number;
}

static uint64_t
retries(void)
{
    return config->past_retries + shmconf_segment_retries(config->segment);
}

/* Of readers that were closed. */
static uint64_t past_retries;

/* Bytes of the segment file. */
static uint64_t
file_size(void)
{
    struct stat found;
    return fstat(config->segment->fd, &found) == 0 ? (uint64_t)found.st_size : 0;
}

static void
read_snapshot(void)
{
    static uint64_t known_size, known_epoch;
    shmconf_snapshot snapshot;
    const unsigned char *value;
    size_t length;
    uint64_t size, epoch = shmconf_epoch(config), before = current(), tries = retries();
    int result = shmconf_snapshot_take(config, &snapshot);
    CHECK(result == SHMCONF_OK, "snapshot: %s", shmconf_describe(result));
    uint64_t version = snapshot.version;
    CHECK(before <= version && version <= current(), "version %" PRIu64 " was taken after %" PRIu64, version, before);
    if (snapshot.epoch == epoch && retries() > tries && version - before >= SC_SLOTS) {
        seen.lapped++;
    }
    CHECK(integer_in(&snapshot, "version") == version, "version of %" PRIu64, version);
    CHECK(integer_in(&snapshot, "db.pool.size") == version, "db.pool.size of version %" PRIu64, version);
    CHECK(integer_in(&snapshot, "list.1") == version + 1, "list.1 of version %" PRIu64, version);
    CHECK(integer_in(&snapshot, "last") == version, "last of version %" PRIu64, version);
    result = shmconf_snapshot_get(&snapshot, "fill", &value, &length);
    CHECK((result == SHMCONF_OK) == (services(version) > 0), "fill of version %" PRIu64, version);
    if (result == SHMCONF_OK) {
        const unsigned char *fill = binary(value, length, &size);
        CHECK(fill != NULL, "fill is something else");
        check_fill(fill, size, version);
        CHECK(integer_in(&snapshot, "services.s5.port") == version + 5, "services.s5.port of version %" PRIu64, version);
    }
    if (known_epoch == 0 || snapshot.epoch != known_epoch) {
        seen.epochs++;
        known_epoch = snapshot.epoch;
        known_size = file_size();
    }
    else if (snapshot.payload_length > known_size) {
        seen.grown++;
        known_size = file_size();
    }
    floor_version = version;
    seen.verified++;
    seen.snapshots++;
    shmconf_snapshot_free(&snapshot);
}

static void
read_status(void)
{
    shmconf_status status;
    char number[24];
    CHECK(shmconf_status_take(config, &status) == SHMCONF_OK, "status");
    CHECK(status.rejections == status.problem_count, "status %" PRIu64, status.rejections);
    size_t width = (size_t)snprintf(number, sizeof number, "%" PRIu64 " ", status.rejections);
    size_t length = strlen(status.last_error);
    CHECK(length == 0 || length == width * (status.rejections % 400), "status %" PRIu64, status.rejections);
    for (size_t at = 0; at < length; at += width) {
        CHECK(memcmp(status.last_error + at, number, width) == 0, "status %" PRIu64, status.rejections);
    }
    seen.verified++;
    seen.retries = past_retries + retries();
    seen.last = floor_version;
    CHECK(pwrite(record, &seen, sizeof seen, 0) == (ssize_t)sizeof seen, "the record");
}

int
main(int count, char **arguments)
{
    shmconf_fault fault;
    size_t capacity = LARGEST + 16;
    unsigned char *buffer = malloc(capacity);
    if (count != 4 || buffer == NULL || (record = open(arguments[3], O_WRONLY | O_CREAT, 0600)) < 0) {
        fprintf(stderr, "stress_reader DIRECTORY points|cells|snapshots FILE\n");
        return 2;
    }
    chance = (uint64_t)getpid() << 20 | 1;
    while (shmconf_open(&config, "web", arguments[1], &fault) != SHMCONF_OK) {
        if (fault.result != SHMCONF_NOT_FOUND) {
            fprintf(stderr, "open: %s\n", fault.text);
            return 1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    for (;;) {
        switch (arguments[2][0]) {
        case 'p':
            for (int i = 0; i < 20; i++) {
                read_integer("version", 0);
                read_integer("list.1", 1);
                read_integer("last", 0);
                read_integer("db.pool.size", 0);
                read_texts();
                read_others();
            }
            read_containers(buffer, capacity);
            break;
        case 'c':
            read_cells(500 + draw(1000));
            read_snapshot();
            break;
        default:
            for (int i = 0; i < 5; i++) {
                read_snapshot();
            }
            int waited = shmconf_wait(config, floor_version, 0.2, NULL);
            CHECK(waited == SHMCONF_OK || waited == SHMCONF_TIMEOUT, "wait: %s", shmconf_describe(waited));
            if (draw(10) == 0) { /* a reader of one's own, anew */
                past_retries += retries();
                shmconf_close(config);
                int result;
                while ((result = shmconf_open(&config, "web", arguments[1], &fault)) == SHMCONF_NOT_FOUND) {
                    sched_yield();
                }
                if (result != SHMCONF_OK) {
                    fprintf(stderr, "open: %s\n", fault.text);
                    return 1;
                }
            }
        }
        read_status();
    }
}
