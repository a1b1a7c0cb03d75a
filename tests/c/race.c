/* race DIRECTORY SECONDS READS RETRIES: readers in several threads while another one publishes without pause, all through
 * the same mapping, for ThreadSanitizer, which sees one process and addresses. Ends when READS were verified and RETRIES
 * tries were overtaken by the writer; exit code 1 where that does not happen within SECONDS, or a value is wrong.
 *
 * The writer is section 6 of FORMAT.md in C11: its stores to the shared words and to payloads are atomic. With
 * -DPLAIN_PAYLOAD it copies payloads with memcpy instead, which ThreadSanitizer has to notice. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include <pthread.h>

enum {
    SHARED_READERS = 3, /* threads on one shmconf_segment */
    OWN_READERS = 3,    /* threads with a shmconf_reader each */
    MAX_BYTES = 1 << 20,
    ROOM_PAGES = 8,
    NUMBERS = 3000, /* the payload: {"n": version, "list": [version, ...], "last": version} */
    PAYLOAD = 1 + 2 + 9 + 5 + 3 + 9 * NUMBERS + 5 + 9
};

static unsigned char *shared; /* the one mapping that all use */
static atomic_bool over;
static atomic_ullong verified, published, lapped;
static uint32_t crc_tables[8][256];
static const char *place;

static void
demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "race: %s\n", what);
        exit(1);
    }
}

static uint32_t
crc(const void *data, size_t length)
{
    return sc_crc((sc_crc_table)crc_tables, 0, data, length);
}

/* --- the writer, by FORMAT.md ------------------------------------------------------------------------------------- */

static void
store(uint64_t offset, uint64_t word, memory_order order)
{
    atomic_store_explicit((_Atomic uint64_t *)(void *)(shared + offset), word, order);
}

static void
store_bytes(uint64_t offset, const void *data, size_t length)
{
#ifdef PLAIN_PAYLOAD
    memcpy(shared + offset, data, length);
#else
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = 0;
        memcpy(&word, (const unsigned char *)data + at, length - at < 8 ? length - at : 8);
        store(offset + at, word, memory_order_relaxed);
    }
#endif
}

static unsigned char *
put_number(unsigned char *at, uint64_t number)
{
    uint64_t big = __builtin_bswap64(number);
    *at = 0xCF;
    memcpy(at + 1, &big, 8);
    return at + 9;
}

static unsigned char *
put_bytes(unsigned char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static void
fill_payload(unsigned char *payload, uint64_t version)
{
    unsigned char *at = put_number(put_bytes(payload, "\x83\xA1n", 3), version);
    at = put_bytes(at, "\xA4list\xDC", 6);
    *at++ = NUMBERS >> 8;
    *at++ = NUMBERS & 0xFF;
    for (int i = 0; i < NUMBERS; i++) {
        at = put_number(at, version);
    }
    at = put_number(put_bytes(at, "\xA4last", 5), version);
    demand(at == payload + PAYLOAD, "the payload's length");
}

static void
publish(uint64_t version)
{
    static unsigned char payload[PAYLOAD];
    uint64_t slot = SC_SLOT_BASE + version % SC_SLOTS * SC_SLOT_SIZE;
    uint64_t page = SC_FIRST_ROOM_PAGE + version % SC_SLOTS * ROOM_PAGES;
    uint64_t room = page | (uint64_t)ROOM_PAGES << 32;
    unsigned char descriptor[48] = {0}, checked[68];
    uint64_t lengths[4] = {PAYLOAD, 0, 1, version};
    fill_payload(payload, version);
    uint32_t checksums[3] = {crc(payload, PAYLOAD), 0, crc("\x80", 1)};
    memcpy(descriptor, lengths, 32);
    memcpy(descriptor + 32, checksums, 12);
    memcpy(checked, (uint64_t[]){1, version, room}, 24);
    memcpy(checked + 24, descriptor, 44);
    uint32_t checksum = crc(checked, sizeof checked);
    memcpy(descriptor + 44, &checksum, 4);

    store(slot, 2 * version - 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the readers' fence before they look at the counter again */
    store(slot + 8, room, memory_order_relaxed);
    for (uint64_t at = 0; at < 48; at += 8) {
        uint64_t word;
        memcpy(&word, descriptor + at, 8);
        store(slot + 16 + at, word, memory_order_relaxed);
    }
    store_bytes(page * SC_PAGE, payload, PAYLOAD);
    store(page * SC_PAGE + sc_aligned(PAYLOAD), 0x80, memory_order_relaxed);
    store(slot, 2 * version, memory_order_release);
    store(SC_LATEST, version, memory_order_release);
    atomic_fetch_add_explicit((_Atomic uint32_t *)(void *)(shared + SC_WAKE), 1, memory_order_release);
    syscall(SYS_futex, shared + SC_WAKE, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    atomic_store(&published, version);
}

static void
write_status(uint64_t number)
{
    unsigned char body[] = "\x81\xA5state\xA7running";
    uint64_t copy = SC_STATUS_BASE + number % SC_STATUS_COPIES * SC_PAGE;
    store(copy, 2 * number - 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* as in publish */
    store(copy + 8, (sizeof body - 1) | (uint64_t)crc(body, sizeof body - 1) << 32, memory_order_relaxed);
    for (uint64_t at = 0; at < sizeof body - 1; at += 8) {
        uint64_t word = 0;
        memcpy(&word, body + at, sizeof body - 1 - at < 8 ? sizeof body - 1 - at : 8);
        store(copy + 16 + at, word, memory_order_relaxed);
    }
    store(copy, 2 * number, memory_order_release);
    store(SC_STATUS_LATEST, number, memory_order_release);
}

static void *
write_without_pause(void *unused)
{
    for (uint64_t version = 2; !atomic_load(&over); version++) {
        publish(version);
        write_status(version);
        store(SC_HEARTBEAT, (uint64_t)sc_now(), memory_order_release);
    }
    return unused;
}

/* --- the readers -------------------------------------------------------------------------------------------------- */

static void
note(uint64_t before, uint64_t found)
{
    demand(found >= before, "a version that goes back");
    atomic_fetch_add(&verified, 1);
    if (atomic_load(&published) >= found + SC_SLOTS) { /* its slot was written anew by the time that it was read */
        atomic_fetch_add(&lapped, 1);
    }
}

static uint64_t
number_at(const unsigned char *value, size_t length)
{
    uint64_t number;
    demand(shmconf_as_uint(value, length, &number) == SHMCONF_OK, "a value that is no number");
    return number;
}

static void *
allocate(void *context, int section, size_t length)
{
    (void)section;
    return length <= PAYLOAD ? context : NULL;
}

/* Look-ups, verified copies and status on a segment that other threads use as well. */
static void *
read_shared(void *context)
{
    shmconf_segment *segment = context;
    unsigned char *copy = malloc(PAYLOAD), value[9], body[SHMCONF_STATUS_SIZE];
    const shmconf_part paths[3][2] = {
        {{.kind = SHMCONF_TEXT, .bytes = "n", .length = 1}},
        {{.kind = SHMCONF_TEXT, .bytes = "list", .length = 4}, {.kind = SHMCONF_INTEGER, .number = NUMBERS - 1}},
        {{.kind = SHMCONF_TEXT, .bytes = "last", .length = 4}},
    };
    uint64_t version, last = 0;
    for (size_t turn = 0; !atomic_load(&over); turn++) {
        shmconf_fault fault;
        shmconf_snapshot snapshot;
        size_t length, i = turn % 3;
        int result = shmconf_segment_get(segment, paths[i], 1 + i % 2, value, sizeof value, &length, &version, &fault);
        demand(result == SHMCONF_OK, result == SHMCONF_OK ? "" : fault.text);
        demand(number_at(value, length) == version, "a value of another version");
        note(last, version);
        last = version;
        result = shmconf_segment_copy(segment, SHMCONF_PAYLOAD, allocate, copy, &snapshot, &fault);
        demand(result == SHMCONF_OK, result == SHMCONF_OK ? "" : fault.text);
        for (size_t at = 0; at < NUMBERS; at++) {
            demand(number_at(copy + 3 + 9 + 8 + 9 * at, 9) == snapshot.version, "a copy of several versions");
        }
        note(last, snapshot.version);
        last = snapshot.version;
        demand(shmconf_segment_status(segment, body, &length, &fault) == SHMCONF_OK, "status");
        demand(length == 0 || memcmp(body, "\x81\xA5state\xA7running", length) == 0, "a status that nobody wrote");
        shmconf_segment_heartbeat_age(segment);
    }
    free(copy);
    return NULL;
}

/* The reader's calls and cells, and waiting, with a reader of the thread's own. */
static void *
read_own(void *context)
{
    shmconf_reader *reader = context;
    shmconf_int_cell cell;
    uint64_t last = 0, version, number;
    shmconf_int_cell_init(&cell, reader, "last");
    while (!atomic_load(&over)) {
        int64_t value;
        shmconf_snapshot snapshot;
        const unsigned char *found;
        size_t length;
        int waited = shmconf_wait(reader, last, 1, &version);
        if (waited == SHMCONF_TIMEOUT) {
            continue; /* the writer had no turn, or has ended: main's deadline and count say whether enough was seen */
        }
        demand(waited == SHMCONF_OK, "wait");
        demand(shmconf_int_cell_get(&cell, &value) == SHMCONF_OK, shmconf_last_fault(reader)->text);
        note(version, (uint64_t)value);
        demand(shmconf_get_uint(reader, "list.1500", &number) == SHMCONF_OK, shmconf_last_fault(reader)->text);
        note((uint64_t)value, number);
        demand(shmconf_snapshot_take(reader, &snapshot) == SHMCONF_OK, shmconf_last_fault(reader)->text);
        demand(shmconf_snapshot_get(&snapshot, "list.2999", &found, &length) == SHMCONF_OK, "snapshot_get");
        demand(number_at(found, length) == snapshot.version, "a snapshot of several versions");
        note(number, snapshot.version);
        last = snapshot.version;
        shmconf_snapshot_free(&snapshot);
    }
    shmconf_cell_release(&cell.cell);
    return NULL;
}

/* --- the segment -------------------------------------------------------------------------------------------------- */

static void
make_file(const char *path)
{
    unsigned char header[SC_FIXED] = SC_MAGIC;
    memcpy(header + 8, &(uint32_t){SC_FORMAT}, 4);
    memcpy(header + 16, &(uint64_t){1}, 8);
    memcpy(header + 24, &(uint64_t){MAX_BYTES}, 8);
    memcpy(header + SC_FIXED_CHECKSUM, &(uint32_t){crc(header, SC_FIXED_CHECKSUM)}, 4);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    demand(fd >= 0 && posix_fallocate(fd, 0, MAX_BYTES) == 0, "the file cannot be made");
    demand(pwrite(fd, header, sizeof header, 0) == (ssize_t)sizeof header, "the header");
    shared = mmap(NULL, MAX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    demand(shared != MAP_FAILED, "mmap");
    close(fd);
    publish(1);
}

/* ThreadSanitizer knows addresses, not files: all mappings of the segment become the writer's. */
static void
share(shmconf_segment *segment)
{
    munmap((void *)(uintptr_t)segment->base, segment->mapped);
    segment->base = shared;
}

int
main(int count, char **arguments)
{
    pthread_t threads[1 + SHARED_READERS + OWN_READERS];
    shmconf_reader *readers[OWN_READERS];
    shmconf_segment *segment;
    shmconf_fault fault;
    char path[PATH_MAX];
    int started = 0;
    demand(count == 5, "arguments: DIRECTORY SECONDS READS RETRIES");
    place = arguments[1];
    int64_t deadline = sc_now() + atoll(arguments[2]) * SC_SECOND;
    unsigned long long wanted = strtoull(arguments[3], NULL, 10), wanted_retries = strtoull(arguments[4], NULL, 10);
    sc_crc_prepare(crc_tables);
    snprintf(path, sizeof path, "%s/web.shmconf", place);
    make_file(path);
    demand(shmconf_segment_open(&segment, place, true, "web", &fault) == SHMCONF_OK, "segment_open");
    share(segment);
    for (int i = 0; i < OWN_READERS; i++) {
        demand(shmconf_open(&readers[i], "web", place, &fault) == SHMCONF_OK, "open");
        share(readers[i]->segment);
    }
    pthread_create(&threads[started++], NULL, write_without_pause, NULL);
    for (int i = 0; i < SHARED_READERS; i++) {
        pthread_create(&threads[started++], NULL, read_shared, segment);
    }
    for (int i = 0; i < OWN_READERS; i++) {
        pthread_create(&threads[started++], NULL, read_own, readers[i]);
    }
    unsigned long long retries;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        retries = shmconf_segment_retries(segment);
        for (int i = 0; i < OWN_READERS; i++) {
            retries += shmconf_segment_retries(readers[i]->segment);
        }
    } while (sc_now() < deadline &&
             (atomic_load(&verified) < wanted || retries < wanted_retries || atomic_load(&lapped) == 0));
    atomic_store(&over, true);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%llu reads verified, %llu of them lapped, %llu retries, %llu versions\n", atomic_load(&verified),
           atomic_load(&lapped), retries, atomic_load(&published));
    demand(atomic_load(&verified) >= wanted && retries >= wanted_retries && atomic_load(&lapped) > 0, "too little was seen");
    for (int i = 0; i < OWN_READERS; i++) {
        readers[i]->segment->base = NULL; /* the mapping is not its own */
        shmconf_close(readers[i]);
    }
    segment->base = NULL;
    shmconf_segment_close(segment);
    return 0;
}
