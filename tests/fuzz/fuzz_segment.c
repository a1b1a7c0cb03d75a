/* libFuzzer's target: hostile segments, and hostile bytes for what takes bytes.
 *
 * An input is a segment without the bytes that mean nothing, so that the fuzzer's changes fall on those that do:
 *
 *     flags     what is put right before the segment is read: else few inputs would get past a checksum
 *     shape     low 4 bits: 256-byte pieces that the file is cut short by; high 4: pages that it is longer
 *     header    the 64 bytes of the fixed part
 *     words     latest, wake word, heartbeat, status number: 8 bytes each
 *     slots     the first 64 bytes of each of the four
 *     status    the first 128 bytes of each of the two copies
 *     rooms     all the rest, from page 3 on
 *
 * A shorter input has zeros for what is missing. corpus/ has such inputs, made by make_corpus.py. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include "exercise.h"

enum {
    FIX_HEADER = 1,  /* a valid header */
    FIX_CRC = 2,     /* the header's checksum */
    FIX_SLOT = 4,    /* of the latest version: its counter and checksum */
    FIX_ROOM = 8,    /* and its room and lengths, such that they fit the file */
    FIX_CONTENT = 16, /* and the checksums of its sections */
    FIX_STATUS = 32  /* of the latest status: its counter, length and checksum */
};

enum { HEADER = 64, WORDS = 32, SLOT = 64, STATUS = 128, HEAD = 2 + HEADER + WORDS + 4 * SLOT + 2 * STATUS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In place of libc's: a reader that insists waits for nobody here. */
int
sched_yield(void)
{
    return 0;
}

static char place[PATH_MAX];
static uint32_t crc_tables[8][256];

static void
clean_up(void)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/web.shmconf", place);
    unlink(path);
    rmdir(place);
}

static void
prepare(void)
{
    const char *chosen = getenv("TMPDIR");
    if (place[0] == '\0') {
        snprintf(place, sizeof place, "%s/shmconf-fuzz-XXXXXX", chosen != NULL ? chosen : "/tmp");
        insist_on(mkdtemp(place) != NULL, "no temporary directory");
        atexit(clean_up);
        sc_crc_prepare(crc_tables);
    }
}

static uint32_t
crc(const void *data, size_t length)
{
    return sc_crc((sc_crc_table)crc_tables, 0, data, length);
}

static uint64_t
word_at(const unsigned char *file, size_t offset)
{
    uint64_t word;
    memcpy(&word, file + offset, 8);
    return word;
}

static void
set_word(unsigned char *file, size_t offset, uint64_t word)
{
    memcpy(file + offset, &word, 8);
}

static void
set_half(unsigned char *file, size_t offset, uint32_t half)
{
    memcpy(file + offset, &half, 4);
}

static void
fix_header(unsigned char *file, int flags)
{
    if ((flags & FIX_HEADER) != 0) {
        memset(file, 0, HEADER);
        memcpy(file, SC_MAGIC, 8);
        set_half(file, 8, SC_FORMAT);
        set_word(file, 16, 1);
        set_word(file, 24, 1 << 20);
    }
    if ((flags & (FIX_HEADER | FIX_CRC)) != 0) {
        set_half(file, SC_FIXED_CHECKSUM, crc(file, SC_FIXED_CHECKSUM));
    }
}

/* rooms: the bytes behind the header area that the input has. */
static void
fix_slot(unsigned char *file, size_t rooms, int flags)
{
    uint64_t version = word_at(file, SC_LATEST) & SC_VERSION_MASK;
    unsigned char *slot = file + SC_SLOT_BASE + version % SC_SLOTS * SC_SLOT_SIZE;
    uint64_t identity[3] = {word_at(file, 16), version, 0};
    if ((flags & FIX_ROOM) != 0) {
        uint64_t left = rooms, start = 0;
        set_word(slot, SC_SLOT_ROOM, SC_FIRST_ROOM_PAGE | (uint64_t)(rooms + SC_PAGE - 1) / SC_PAGE << 32);
        for (int section = 0; section < 3; section++) {
            uint64_t length = word_at(slot, SC_SLOT_DESCRIPTOR + 8 * (size_t)section) % (left + 1);
            set_word(slot, SC_SLOT_DESCRIPTOR + 8 * (size_t)section, length);
            if ((flags & FIX_CONTENT) != 0) {
                set_half(slot, 48 + 4 * (size_t)section, crc(file + SC_ROOMS_BASE + start, length));
            }
            start += sc_aligned(length);
            left = start < rooms ? rooms - start : 0;
        }
    }
    if ((flags & FIX_SLOT) != 0) {
        unsigned char checked[68];
        set_word(slot, 0, 2 * version);
        identity[2] = word_at(slot, SC_SLOT_ROOM);
        memcpy(checked, identity, 24);
        memcpy(checked + 24, slot + SC_SLOT_DESCRIPTOR, 44);
        set_half(slot, 60, crc(checked, sizeof checked));
    }
}

static void
fix_status(unsigned char *file)
{
    uint64_t number = word_at(file, SC_STATUS_LATEST);
    unsigned char *copy = file + SC_STATUS_BASE + number % SC_STATUS_COPIES * SC_PAGE;
    uint32_t length = (uint32_t)(word_at(copy, SC_STATUS_HEAD) % (STATUS - SC_STATUS_BODY + 1));
    set_word(copy, 0, 2 * number);
    set_half(copy, SC_STATUS_HEAD, length);
    set_half(copy, SC_STATUS_HEAD + 4, crc(copy + SC_STATUS_BODY, length));
}

static const uint8_t *
take(unsigned char *file, size_t offset, const uint8_t *from, size_t length)
{
    memcpy(file + offset, from, length);
    return from + length;
}

/* The input as a segment file. */
static void
write_segment(const uint8_t *data, size_t size)
{
    uint8_t head[HEAD] = {0};
    size_t rooms = size > HEAD ? size - HEAD : 0;
    memcpy(head, data, size - rooms);
    size_t whole = SC_ROOMS_BASE + (rooms + SC_PAGE - 1) / SC_PAGE * SC_PAGE + (size_t)(head[1] >> 4) * SC_PAGE;
    unsigned char *file = calloc(1, whole);
    insist_on(file != NULL, "no memory for a segment");
    const uint8_t *from = take(file, 0, head + 2, HEADER);
    from = take(file, SC_LATEST, from, 8);
    from = take(file, SC_WAKE, from, 8);
    from = take(file, SC_HEARTBEAT, from, 8);
    from = take(file, SC_STATUS_LATEST, from, 8);
    for (size_t slot = 0; slot < SC_SLOTS; slot++) {
        from = take(file, SC_SLOT_BASE + slot * SC_SLOT_SIZE, from, SLOT);
    }
    for (size_t copy = 0; copy < SC_STATUS_COPIES; copy++) {
        from = take(file, SC_STATUS_BASE + copy * SC_PAGE, from, STATUS);
    }
    memcpy(file + SC_ROOMS_BASE, data + size - rooms, rooms);
    fix_header(file, head[0]);
    fix_slot(file, rooms, head[0]);
    if ((head[0] & FIX_STATUS) != 0) {
        fix_status(file);
    }
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/web.shmconf", place);
    unlink(path); /* a new file each time, as no segment ever shrinks */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    size_t length = whole - (size_t)(head[1] & 15) * 256;
    insist_on(fd >= 0 && write(fd, file, length) == (ssize_t)length, "the segment cannot be written");
    close(fd);
    free(file);
}

/* The functions that take bytes, each with memory of exactly their length, where ASan sees a step too far. */
static void
exercise_bytes(const uint8_t *data, size_t size)
{
    size_t cut = size > 2 ? (size_t)(data[0] | data[1] << 8) % (size - 1) : 0;
    uint8_t *payload = malloc(size - cut + 1), *index = malloc(cut + 1);
    char *text = malloc(size + 1), *scratch = malloc(size + 1);
    shmconf_part parts[4];
    size_t offset, length;
    memcpy(payload, data + cut, size - cut);
    memcpy(index, data, cut);
    memcpy(text, data, size);
    payload = realloc(payload, size - cut);
    index = realloc(index, cut);
    ptrdiff_t count = shmconf_path_parse(text, size, scratch, parts, 4);
    insist_on(count >= -1 && count != 0 && count <= (ptrdiff_t)size, "a path without parts, or of more than its text has");
    for (ptrdiff_t i = 0; i < count && i < 4; i++) {
        insist_on(parts[i].bytes >= scratch && parts[i].bytes + parts[i].length <= scratch + size, "a part outside");
    }
    for (int kind = SHMCONF_TEXT; kind <= SHMCONF_NIL; kind++) {
        shmconf_part asked[2] = {{.kind = (enum shmconf_part_kind)kind, .bytes = text, .length = size < 24 ? size : 24,
                                  .number = size, .real = (double)size / 2, .extension = (int)(size % 8)},
                                 {.kind = SHMCONF_TEXT, .bytes = "0", .length = 1}};
        for (size_t depth = 0; depth <= 2; depth++) {
            int found = shmconf_find(payload, size - cut, index, cut, asked, depth, &offset, &length);
            insist_on(found != SHMCONF_OK || (offset <= size - cut && length <= size - cut - offset), "a value outside");
        }
    }
    exercise_scalars(payload, size - cut);
    free(payload);
    free(index);
    free(text);
    free(scratch);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    write_segment(data, size);
    exercise(place, "web", NULL);
    if (size > 0) {
        exercise_bytes(data + (size > HEAD ? HEAD : 0), size > HEAD ? size - HEAD : size);
    }
    return 0;
}
