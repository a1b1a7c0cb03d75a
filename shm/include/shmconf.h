/* shmconf.h: read configuration that a shmconf agent keeps in shared memory. One header, C11, nothing but libc.
 *
 * In every file that reads:                 #include "shmconf.h"           (C or C++)
 * in one C file of the program, first:      #define SHMCONF_IMPLEMENTATION
 *                                           #include "shmconf.h"
 *
 *     shmconf_reader *config;
 *     int64_t size;
 *     if (shmconf_open(&config, "web", NULL, NULL) == SHMCONF_OK) {
 *         if (shmconf_get_int(config, "db.pool.size", &size) == SHMCONF_OK) printf("%lld\n", (long long)size);
 *         shmconf_close(config);
 *     }
 *
 * The bytes of a segment are specified in FORMAT.md; the numbers in brackets below are its sections.
 *
 * The contract with the writer: nothing here writes into a segment, takes a lock or waits for anybody. A value or a
 * snapshot is of exactly one published version. A dead writer, a lapping one, a full disk or hostile bytes cost a
 * result code, never a crash, a hang or a read outside the file.
 *
 * Ownership. What open gives, close takes back; text and bytes are copied into the caller's buffers, and a snapshot is
 * memory of its own that shmconf_snapshot_free gives back.
 * Threads. A shmconf_reader belongs to one thread at a time: give each thread its own (they share the memory of the
 * segment), or lock around it. A shmconf_segment, the layer below, may be used by any number of threads at once, until
 * it is closed. A snapshot may be read by any number of threads.
 * Fork. Readers, segments and snapshots may be inherited and used on both sides; each side closes its own.
 * Errors. Every call returns an enum shmconf_result; shmconf_describe puts it in words, and a shmconf_fault says
 * what and where.
 * Systems. Little-endian, 64 bits, a compiler with GCC's atomics; Linux sleeps in the kernel, others poll. The unit that
 * holds the implementation includes this header before any other, or is compiled with -D_GNU_SOURCE.
 */
#ifndef SHMCONF_H
#define SHMCONF_H

#if defined(SHMCONF_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* O_PATH and syscall() */
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef SHMCONF_API
#define SHMCONF_API extern /* or static, or a visibility */
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum shmconf_result {
    SHMCONF_OK = 0,
    SHMCONF_MISSING,      /* the configuration has nothing at that path */
    SHMCONF_WRONG_TYPE,   /* what is at that path is of another type, or does not fit */
    SHMCONF_NO_SPACE,     /* the caller's buffer is too small; the length that is needed was told */
    SHMCONF_TIMEOUT,      /* no newer version in time */
    SHMCONF_INTERRUPTED,  /* a signal ended the wait */
    SHMCONF_BAD_PATH,     /* the path's text is not in the grammar of dotted keys */
    SHMCONF_BAD_NAME,     /* not a segment name: [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
    SHMCONF_NOT_FOUND,    /* no such segment, or nothing published in it yet */
    SHMCONF_UNTRUSTED,    /* somebody who must not decide this process's configuration could have written it */
    SHMCONF_INCOMPATIBLE, /* a segment of another format */
    SHMCONF_CORRUPT,      /* bytes that no writer of this format leaves */
    SHMCONF_BUSY,         /* no consistent read in 2,000 tries and a second: published without a pause */
    SHMCONF_SYSTEM        /* a system call failed (errno in the fault), or no memory */
};

/* What went wrong, for people. May be NULL wherever one is taken. */
typedef struct shmconf_fault {
    int result;       /* enum shmconf_result */
    int system_error; /* errno, or 0 */
    char text[512];   /* what and where, ended by a zero */
} shmconf_fault;

/* The result in a few words; never NULL. */
SHMCONF_API const char *shmconf_describe(int result);

/* --- readers ------------------------------------------------------------------------------------------------------
 * A reader follows the segment's name: when the segment is replaced (removed, damaged, of another format) it moves to
 * the successor as soon as that holds a published version, and serves what it has until then. It looks for one while it
 * waits, in shmconf_status_take, shmconf_snapshot_take (at most once a second) and at every 1,024th look-up. */

typedef struct shmconf_reader shmconf_reader;

/* Opens the segment `name`. directory: the runtime directory, or NULL for $SHMCONF_DIR, else the first of
 * /run/shmconf, $XDG_RUNTIME_DIR/shmconf (or /run/user/UID/shmconf) and /dev/shm/shmconf-UID that holds the segment.
 * SHMCONF_NOT_FOUND also where nothing was published yet (the fault then quotes the agent's reason). */
SHMCONF_API int shmconf_open(shmconf_reader **reader, const char *name, const char *directory, shmconf_fault *fault);

/* Gives everything back; NULL is allowed. The reader's cells say SHMCONF_NOT_FOUND from then on. */
SHMCONF_API void shmconf_close(shmconf_reader *reader);

/* What the last call on this reader that did not return SHMCONF_OK had to say; never NULL. A cell that repeats a result
 * says nothing anew. */
SHMCONF_API const shmconf_fault *shmconf_last_fault(const shmconf_reader *reader);

/* The version now in shared memory, 1 or more, by one atomic load; and the number that names the segment file. */
SHMCONF_API uint64_t shmconf_version(const shmconf_reader *reader);
SHMCONF_API uint64_t shmconf_epoch(const shmconf_reader *reader);

/* The value at `path` (TOML's dotted keys: db.pool.size, "a.b".c, hosts.0) as one msgpack document, copied into
 * `buffer`. *length is set to its bytes, also with SHMCONF_NO_SPACE. Never blocks. */
SHMCONF_API int shmconf_get(shmconf_reader *reader, const char *path, void *buffer, size_t capacity, size_t *length);

/* The same for one type. An integer is taken as a double where it is one exactly; nothing else is converted. */
SHMCONF_API int shmconf_get_int(shmconf_reader *reader, const char *path, int64_t *value);
SHMCONF_API int shmconf_get_uint(shmconf_reader *reader, const char *path, uint64_t *value);
SHMCONF_API int shmconf_get_double(shmconf_reader *reader, const char *path, double *value);
SHMCONF_API int shmconf_get_bool(shmconf_reader *reader, const char *path, bool *value);
/* Text ends in a zero, for which `capacity` must have room; *length (may be NULL) does not count it. */
SHMCONF_API int shmconf_get_string(shmconf_reader *reader, const char *path, char *buffer, size_t capacity,
                                   size_t *length);

/* Sleeps in the kernel until the version is greater than `after`. timeout in seconds; below 0 waits for ever.
 * *version (may be NULL) is the one found. SHMCONF_TIMEOUT, or SHMCONF_INTERRUPTED after a signal. Once the reader has
 * moved to a replacement, an `after` beyond its version returns at once: such numbers belong to the segment before. */
SHMCONF_API int shmconf_wait(shmconf_reader *reader, uint64_t after, double timeout, uint64_t *version);

/* How the segment and its agent are. Times in ns. */
typedef struct shmconf_status {
    uint64_t version; /* 0: nothing published yet */
    uint64_t epoch;
    bool retired;                 /* a successor is on its way */
    bool agent_alive;             /* a heartbeat within 3 s, and not stopped */
    bool serving_last_known_good; /* the files are invalid now, or what is served is from before the agent's start */
    int64_t heartbeat_age;        /* ns, or -1 where there is none */
    uint64_t retries;             /* this reader's tries that a concurrent publication made worthless */
    uint64_t reopened;            /* how often this reader moved to a replacement */
    uint64_t rejections;          /* since the agent's start */
    uint64_t problem_count;
    char state[16];        /* starting, running, stopped; unknown where the status block is damaged or absent */
    char last_error[4096]; /* why the newest files are not what is served; empty while they are */
    char held[65]; /* digest of a valid candidate that the guard holds, for the reason in last_error; empty for none */
} shmconf_status;

SHMCONF_API int shmconf_status_take(shmconf_reader *reader, shmconf_status *status);

/* --- snapshots ----------------------------------------------------------------------------------------------------
 * One version, whole, copied out and verified by its checksums. */

typedef struct shmconf_snapshot {
    uint64_t epoch, version;
    uint64_t published_at; /* ns since 1970 */
    const unsigned char *payload;
    size_t payload_length; /* one msgpack document */
    const unsigned char *index;
    size_t index_length;
    const unsigned char *metadata;
    size_t metadata_length; /* one msgpack map */
    void *memory;           /* what shmconf_snapshot_free gives back */
} shmconf_snapshot;

SHMCONF_API int shmconf_snapshot_take(shmconf_reader *reader, shmconf_snapshot *snapshot);
SHMCONF_API void shmconf_snapshot_free(shmconf_snapshot *snapshot);

/* The value at `path` in a snapshot: *value points into it. */
SHMCONF_API int shmconf_snapshot_get(const shmconf_snapshot *snapshot, const char *path, const unsigned char **value,
                                     size_t *length);

/* --- msgpack scalars ------------------------------------------------------------------------------------------- */

SHMCONF_API int shmconf_as_int(const void *value, size_t length, int64_t *result);
SHMCONF_API int shmconf_as_uint(const void *value, size_t length, uint64_t *result);
SHMCONF_API int shmconf_as_double(const void *value, size_t length, double *result);
SHMCONF_API int shmconf_as_bool(const void *value, size_t length, bool *result);
SHMCONF_API int shmconf_as_string(const void *value, size_t length, const char **text, size_t *text_length);

/* --- cells --------------------------------------------------------------------------------------------------------
 * A scalar that is read all the time: while the version is unchanged a read is one acquire load of `latest`, one
 * comparison and the value, inlined. A cell belongs to its reader's thread. The reader keeps a list of its cells and
 * writes into them when it moves or is closed: a cell whose memory goes before shmconf_cell_release or shmconf_close, as
 * at the end of a function that has it on its stack, is memory corrupted later. Cells of a closed reader say
 * SHMCONF_NOT_FOUND.
 *
 * A read of a cell alone does not look at the segment's name, so it sees a replacement that the old segment was told of,
 * but not that somebody removed the file: a loop that reads nothing but cells calls shmconf_follow every second or so. */

struct shmconf_cell {
    const uint64_t *latest; /* in the mapping of the segment in use */
    uint64_t word;          /* `latest` when the value was looked up; 0, which only damage makes of it, before that */
    int result;
    int kind;
    shmconf_reader *reader;
    const char *path;
    struct shmconf_cell *next, **link; /* in the reader's list; `link` is what points to this cell */
};

/* An integer, double or boolean at a path; conversions as shmconf_get_int and its kin. */
typedef struct shmconf_int_cell {
    struct shmconf_cell cell;
    int64_t value;
} shmconf_int_cell;
typedef struct shmconf_double_cell {
    struct shmconf_cell cell;
    double value;
} shmconf_double_cell;
typedef struct shmconf_bool_cell {
    struct shmconf_cell cell;
    bool value;
} shmconf_bool_cell;

/* path: the caller's; it must live as long as the cell. */
SHMCONF_API void shmconf_int_cell_init(shmconf_int_cell *cell, shmconf_reader *reader, const char *path);
SHMCONF_API void shmconf_double_cell_init(shmconf_double_cell *cell, shmconf_reader *reader, const char *path);
SHMCONF_API void shmconf_bool_cell_init(shmconf_bool_cell *cell, shmconf_reader *reader, const char *path);

/* shmconf_cell_release(&cell.cell): the reader forgets the cell. */
SHMCONF_API void shmconf_cell_release(struct shmconf_cell *cell);

/* Looks at the segment's name now, and moves to what it leads to. */
SHMCONF_API void shmconf_follow(shmconf_reader *reader);

/* For the inline functions below only. */
SHMCONF_API void shmconf_cell_refresh(struct shmconf_cell *cell);

static inline bool
shmconf_cell_is_current(const struct shmconf_cell *cell)
{
    /* Acquire: pairs with the writer's release store of `latest`. */
    return __atomic_load_n(cell->latest, __ATOMIC_ACQUIRE) == cell->word;
}

static inline int
shmconf_int_cell_get(shmconf_int_cell *cell, int64_t *value)
{
    if (!shmconf_cell_is_current(&cell->cell)) {
        shmconf_cell_refresh(&cell->cell);
    }
    *value = cell->value; /* 0 where there is none */
    return cell->cell.result;
}

static inline int
shmconf_double_cell_get(shmconf_double_cell *cell, double *value)
{
    if (!shmconf_cell_is_current(&cell->cell)) {
        shmconf_cell_refresh(&cell->cell);
    }
    *value = cell->value;
    return cell->cell.result;
}

static inline int
shmconf_bool_cell_get(shmconf_bool_cell *cell, bool *value)
{
    if (!shmconf_cell_is_current(&cell->cell)) {
        shmconf_cell_refresh(&cell->cell);
    }
    *value = cell->value;
    return cell->cell.result;
}

/* --- segments: the layer below, for bindings to other languages -----------------------------------------------------
 * One mapped file. It stays the same file whatever happens to its name; following the name is the caller's. */

typedef struct shmconf_segment shmconf_segment;

#define SHMCONF_RETIRED (UINT64_C(1) << 63)
#define SHMCONF_STATUS_SIZE 4080

/* Opens NAME.shmconf in `directory`, best an absolute path, after all trust checks [5]. named: the directory was given explicitly or is
 * /run/shmconf, so its owner may own segments; else it must be the caller's own, with mode 0700. A segment at version 0
 * can be opened. */
SHMCONF_API int shmconf_segment_open(shmconf_segment **segment, const char *directory, bool named, const char *name,
                                     shmconf_fault *fault);
SHMCONF_API void shmconf_segment_close(shmconf_segment *segment);

/* For how many ns a read insists beyond its 2,000 tries: a second, unless a test cannot wait for so long. */
SHMCONF_API void shmconf_segment_set_patience(shmconf_segment *segment, int64_t patience);

SHMCONF_API uint64_t shmconf_segment_epoch(const shmconf_segment *segment);
SHMCONF_API uint64_t shmconf_segment_retries(const shmconf_segment *segment);
/* Where `latest` lies: a version, and SHMCONF_RETIRED; to be loaded atomically with acquire order. */
SHMCONF_API const uint64_t *shmconf_segment_latest(const shmconf_segment *segment);
/* Whether the segment's name still leads to this file. */
SHMCONF_API bool shmconf_segment_is_linked(const shmconf_segment *segment);
/* ns since the agent's last heartbeat, or -1. */
SHMCONF_API int64_t shmconf_segment_heartbeat_age(const shmconf_segment *segment);
/* To be loaded before `latest`, then given to sleep: else a publication in between is slept through. */
SHMCONF_API uint32_t shmconf_segment_wake_word(const shmconf_segment *segment);
/* Sleeps while the wake word is `seen`, `seconds` at most. SHMCONF_OK, SHMCONF_INTERRUPTED or SHMCONF_SYSTEM. */
SHMCONF_API int shmconf_segment_sleep(const shmconf_segment *segment, uint32_t seen, double seconds);

/* One step of a path. */
enum shmconf_part_kind {
    SHMCONF_TEXT,      /* from a dotted path: a string key, or an index where the value is a list */
    SHMCONF_STRING,    /* a string key, and nothing else */
    SHMCONF_BINARY,    /* bytes as a key */
    SHMCONF_EXTENSION, /* a key that is an extension, as dates and times are [3] */
    SHMCONF_INTEGER,   /* a number as a key, or an index; negative: see `number` */
    SHMCONF_BOOLEAN,   /* 0 or 1 in `number`: a key, equal to that number, but no index */
    SHMCONF_FLOAT,     /* `real`: a key, equal to that number, but no index */
    SHMCONF_NIL
};
typedef struct shmconf_part {
    enum shmconf_part_kind kind;
    const char *bytes; /* of text, string, binary or extension */
    size_t length;
    uint64_t number; /* modulo 2^64 */
    bool negative;
    double real;
    int extension;
} shmconf_part;

/* The parts of a dotted path: their number, or -1 where the text is not in the grammar; as many as fit are stored.
 * scratch: at least `length` bytes that live as long as the parts. */
SHMCONF_API ptrdiff_t shmconf_path_parse(const char *text, size_t length, char *scratch, shmconf_part *parts,
                                         size_t capacity);

/* As shmconf_get, by parts; *version (may be NULL) is the version that was read. */
SHMCONF_API int shmconf_segment_get(shmconf_segment *segment, const shmconf_part *parts, size_t count, void *buffer,
                                    size_t capacity, size_t *length, uint64_t *version, shmconf_fault *fault);

/* The same, but SHMCONF_BUSY where 1,000 tries were not enough, without yielding to anybody: for who holds a lock that
 * others wait for, and lets go of it before insisting. */
SHMCONF_API int shmconf_segment_get_at_once(shmconf_segment *segment, const shmconf_part *parts, size_t count,
                                            void *buffer, size_t capacity, size_t *length, uint64_t *version,
                                            shmconf_fault *fault);

/* Sections of the latest version, copied and verified, in memory from `allocate`, which is called once for each of them
 * and again for another version if that one was overwritten meanwhile; NULL from it ends the call with SHMCONF_SYSTEM.
 * What was not asked for is NULL and 0. */
enum { SHMCONF_PAYLOAD = 1, SHMCONF_INDEX = 2, SHMCONF_METADATA = 4, SHMCONF_ALL = 7 };
typedef void *shmconf_allocate(void *context, int section, size_t length);
SHMCONF_API int shmconf_segment_copy(shmconf_segment *segment, int sections, shmconf_allocate *allocate, void *context,
                                     shmconf_snapshot *snapshot, shmconf_fault *fault);

/* Compares the latest version with its checksums, without memory for a copy. SHMCONF_NOT_FOUND where there is none. */
SHMCONF_API int shmconf_segment_verify(shmconf_segment *segment, uint64_t *version, shmconf_fault *fault);

/* The body of the agent's status block, verified; *length is 0 where there is none yet. */
SHMCONF_API int shmconf_segment_status(shmconf_segment *segment, unsigned char body[SHMCONF_STATUS_SIZE],
                                       size_t *length, shmconf_fault *fault);

/* A value inside a payload of one's own, with its index (or NULL and 0): where it begins and its length. */
SHMCONF_API int shmconf_find(const void *payload, size_t payload_length, const void *index, size_t index_length,
                             const shmconf_part *parts, size_t count, size_t *offset, size_t *length);

#ifdef __cplusplus
}
#endif
#endif /* SHMCONF_H */

/* === the implementation ========================================================================================== */

#if defined(SHMCONF_IMPLEMENTATION) && !defined(SHMCONF_IMPLEMENTED)
#define SHMCONF_IMPLEMENTED

#ifdef __cplusplus
#error "the implementation of shmconf.h is C11: let one C file define SHMCONF_IMPLEMENTATION"
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#ifndef O_CLOEXEC
#error "include shmconf.h before any other header in this file, or compile it with -D_GNU_SOURCE"
#endif
#ifndef O_PATH
#define O_PATH O_RDONLY /* where a directory must be readable to be entered */
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "segments are little-endian, and so must be who maps them"
#endif

_Static_assert(sizeof(void *) == 8, "segments may be larger than what a 32-bit process can map");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "words shared by processes must be lock-free");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "words have no room for anything else");

/* --- the layout [1, 2, 4] ---------------------------------------------------------------------------------------- */

enum {
    SC_WORD = 8,
    SC_PAGE = 4096,
    SC_FORMAT = 1,
    SC_SLOTS = 4,
    SC_FIXED = 64, /* the part of the header that is written once */
    SC_FIXED_CHECKSUM = 60,
    SC_LATEST = 64,
    SC_WAKE = 128,
    SC_HEARTBEAT = 192,
    SC_STATUS_LATEST = 256,
    SC_SLOT_BASE = 512,
    SC_SLOT_SIZE = 128,
    SC_SLOT_ROOM = 8,
    SC_SLOT_DESCRIPTOR = 16,
    SC_STATUS_BASE = SC_PAGE,
    SC_STATUS_COPIES = 2,
    SC_STATUS_HEAD = 8,
    SC_STATUS_BODY = 16,
    SC_ROOMS_BASE = SC_STATUS_BASE + SC_STATUS_COPIES * SC_PAGE,
    SC_FIRST_ROOM_PAGE = SC_ROOMS_BASE / SC_PAGE,
    SC_INDEX_KIND = 1,
    SC_SMALL = 256, /* bytes of a map or list up to which it has no table */
    SC_LARGEST_STRIDE = 32,
    SC_INSTANT = 4 /* the type of the extension that is a date and time with an offset */
};
#define SC_MAGIC "shmconf" /* and its zero: 8 bytes */
#define SC_VERSION_MASK (SHMCONF_RETIRED - 1)
#define SC_MAX_MAX_BYTES (UINT64_C(1) << 44)

_Static_assert(SC_STATUS_BODY + SHMCONF_STATUS_SIZE == SC_PAGE, "a status copy is one page");
_Static_assert(SC_SLOT_BASE + SC_SLOTS * SC_SLOT_SIZE <= SC_PAGE, "the slots lie in the first page");

/* --- how long to insist, in tries and ns ------------------------------------------------------------------------- */

#define SC_PATIENT_TRIES 1000 /* after so many the reader yields between tries */
#define SC_LAST_TRIES 2000
#define SC_SECOND INT64_C(1000000000)
#define SC_ALIVE (3 * SC_SECOND)         /* without a heartbeat for longer the agent counts as dead */
#define SC_REOPEN_PAUSE (SC_SECOND / 20) /* a retired segment's successor is looked for at most this often */
#define SC_LOOK_UPS_PER_CHECK 1024
#define SC_RETRY (-1) /* in place of a result: the slot was overwritten meanwhile */

struct shmconf_segment {
    const unsigned char *base; /* `mapped` bytes, of which the file may have fewer */
    uint64_t mapped;
    uint64_t epoch;
    _Atomic int fd; /* for fstat; only where it is of this very file, see sc_file_size */
    dev_t device;
    ino_t inode;
    _Atomic uint64_t known; /* bytes that the file is known to have; it never shrinks */
    _Atomic uint64_t retries;
    int64_t patience; /* ns */
    char *path;
    uint32_t crc[8][256]; /* of this segment's own, so that the unit has no state that threads would share */
};

/* --- faults ------------------------------------------------------------------------------------------------------ */

SHMCONF_API const char *
shmconf_describe(int result)
{
    static const char *const words[] = {
        [SHMCONF_OK] = "done",
        [SHMCONF_MISSING] = "nothing at that path",
        [SHMCONF_WRONG_TYPE] = "the value is of another type, or does not fit",
        [SHMCONF_NO_SPACE] = "the buffer is too small",
        [SHMCONF_TIMEOUT] = "no newer version in time",
        [SHMCONF_INTERRUPTED] = "interrupted by a signal",
        [SHMCONF_BAD_PATH] = "not a dotted path",
        [SHMCONF_BAD_NAME] = "not a segment name",
        [SHMCONF_NOT_FOUND] = "no such segment, or nothing published yet",
        [SHMCONF_UNTRUSTED] = "the segment is not to be trusted",
        [SHMCONF_INCOMPATIBLE] = "a segment of another format",
        [SHMCONF_CORRUPT] = "the segment is damaged",
        [SHMCONF_BUSY] = "published without a pause",
        [SHMCONF_SYSTEM] = "the system refused",
    };
    bool known = result >= 0 && (size_t)result < sizeof words / sizeof *words;
    return known ? words[result] : "unknown result";
}

__attribute__((format(printf, 4, 5))) static int
sc_fail(shmconf_fault *fault, int result, int system_error, const char *format, ...)
{
    if (fault != NULL) {
        va_list arguments;
        fault->result = result;
        fault->system_error = system_error;
        va_start(arguments, format);
        vsnprintf(fault->text, sizeof fault->text, format, arguments);
        va_end(arguments);
    }
    return result;
}

/* --- time -------------------------------------------------------------------------------------------------------- */

static int64_t
sc_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SC_SECOND + now.tv_nsec;
}

/* --- CRC-32, eight bytes a step ---------------------------------------------------------------------------------- */

static void
sc_crc_prepare(uint32_t table[8][256])
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
        }
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int step = 1; step < 8; step++) {
            uint32_t before = table[step - 1][byte];
            table[step][byte] = before >> 8 ^ table[0][before & 0xFF];
        }
    }
}

/* The checksum of `data` behind bytes whose checksum was `crc` (0 at first). */
static uint32_t
sc_crc(const uint32_t table[8][256], uint32_t crc, const void *data, size_t length)
{
    const unsigned char *at = data;
    crc = ~crc;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = table[7][word & 0xFF] ^ table[6][word >> 8 & 0xFF] ^ table[5][word >> 16 & 0xFF] ^
              table[4][word >> 24 & 0xFF] ^ table[3][word >> 32 & 0xFF] ^ table[2][word >> 40 & 0xFF] ^
              table[1][word >> 48 & 0xFF] ^ table[0][word >> 56];
    }
    for (; length > 0; length--, at++) {
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 0xFF];
    }
    return ~crc;
}

typedef const uint32_t (*sc_crc_table)[256];

static sc_crc_table
sc_crc_tables(const shmconf_segment *segment)
{
    return (sc_crc_table)segment->crc; /* C before C23 has no implicit conversion to this type */
}

/* The same for a short key of bytes that no segment's table is at hand for. */
static uint32_t
sc_crc_of_key(const void *data, size_t length)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const unsigned char *at = data;
    uint32_t crc = UINT32_MAX;
    for (; length > 0; length--, at++) {
        crc ^= *at;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}

/* --- shared words ------------------------------------------------------------------------------------------------
 * The only ways in which this unit touches the mapping. Offsets are the caller's to check. */

static const _Atomic uint64_t *
sc_shared(const shmconf_segment *segment, uint64_t offset)
{
    return (const _Atomic uint64_t *)(const void *)(segment->base + offset);
}

static uint64_t
sc_acquire(const shmconf_segment *segment, uint64_t offset)
{
    /* Pairs with the writer's release stores of counters, `latest` and the status number. */
    return atomic_load_explicit(sc_shared(segment, offset), memory_order_acquire);
}

static uint64_t
sc_relaxed(const shmconf_segment *segment, uint64_t offset)
{
    return atomic_load_explicit(sc_shared(segment, offset), memory_order_relaxed);
}

static bool
sc_is_unchanged(const shmconf_segment *segment, uint64_t counter_offset, uint64_t stable)
{
    /* Pairs with the writer's full fence after its odd counter (and after the zero of a slot that it gives up): if any
     * word loaded before this fence came from a later writing, the load behind it sees that counter or a later one. */
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(sc_shared(segment, counter_offset), memory_order_relaxed) == stable;
}

/* Relaxed, as all of it: a number orders nothing, and where it is of another file that is looked at. */
static int
sc_descriptor(const shmconf_segment *segment)
{
    return atomic_load_explicit(&segment->fd, memory_order_relaxed);
}

static bool
sc_is_of_file(const shmconf_segment *segment, int fd, struct stat *found)
{
    return fd >= 0 && fstat(fd, found) == 0 && found->st_dev == segment->device && found->st_ino == segment->inode;
}

/* How many bytes the file has; false where nobody can tell. A program that makes itself a daemon closes whatever is open,
 * and the number may come to be another file's, whose size says nothing: then the file is opened by its name again. */
static bool
sc_file_size(shmconf_segment *segment, uint64_t *size)
{
    struct stat found;
    int fd = sc_descriptor(segment);
    if (!sc_is_of_file(segment, fd, &found)) {
        if (!shmconf_segment_is_linked(segment)) { /* to open something else could have effects of its own */
            return false;
        }
        int fresh = open(segment->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fresh < 0) {
            return false;
        }
        if (!sc_is_of_file(segment, fresh, &found)) {
            close(fresh);
            return false;
        }
        if (!atomic_compare_exchange_strong_explicit(&segment->fd, &fd, fresh, memory_order_relaxed,
                                                     memory_order_relaxed)) {
            close(fresh); /* another thread was faster */
        }
    }
    *size = (uint64_t)found.st_size;
    return true;
}

/* Whether the range lies in the mapping and in the file. */
static bool
sc_is_within(const shmconf_segment *constant, uint64_t offset, uint64_t length)
{
    shmconf_segment *segment = (shmconf_segment *)constant; /* only `known` is written, atomically */
    if (offset > segment->mapped || length > segment->mapped - offset) {
        return false;
    }
    if (offset + length > atomic_load_explicit(&segment->known, memory_order_relaxed)) {
        uint64_t size;
        if (!sc_file_size(segment, &size) || offset + length > size) {
            return false;
        }
        /* Relaxed: a race with an older size only costs another fstat, as the file does not shrink. */
        atomic_store_explicit(&segment->known, size, memory_order_relaxed);
    }
    return true;
}

static uint64_t
sc_aligned(uint64_t length)
{
    return (length + SC_WORD - 1) / SC_WORD * SC_WORD;
}

/* --- views: bytes of a segment or of one's own, every access checked ---------------------------------------------- */

struct sc_view {
    const unsigned char *base; /* shared: at a whole word, and readable up to a whole word */
    uint64_t length;
    bool shared;
};

/* A payload and its index (of length 0 where there is none). */
struct sc_content {
    struct sc_view payload, index;
};

/* The word that begins at `offset`, a multiple of 8 below the view's length. */
static inline uint64_t
sc_view_word(const struct sc_view *view, uint64_t offset)
{
    uint64_t word = 0;
    if (view->shared) {
        return atomic_load_explicit((const _Atomic uint64_t *)(const void *)(view->base + offset), memory_order_relaxed);
    }
    memcpy(&word, view->base + offset, view->length - offset < SC_WORD ? view->length - offset : SC_WORD);
    return word;
}

/* Begins to fetch what will be needed soon. In a large segment every first touch of a page waits for several memory
 * accesses, one after the other; those that are begun together are waited for together. */
static inline void
sc_prefetch(const struct sc_view *view, uint64_t offset)
{
    if (offset < view->length) {
        __builtin_prefetch(view->base + offset);
    }
}

/* `count` bytes (1 to 8) as a little-endian number; false where they are not in the view. */
static inline bool
sc_take(const struct sc_view *view, uint64_t offset, unsigned count, uint64_t *number)
{
    if (offset > view->length || count > view->length - offset) {
        return false;
    }
    unsigned shift = (unsigned)(offset % SC_WORD) * 8;
    uint64_t word = sc_view_word(view, offset - offset % SC_WORD) >> shift;
    if (shift + count * 8 > 64) {
        word |= sc_view_word(view, offset - offset % SC_WORD + SC_WORD) << (64 - shift);
    }
    *number = count == 8 ? word : word & ((UINT64_C(1) << count * 8) - 1);
    return true;
}

/* The same as a big-endian number, as msgpack has them. */
static inline bool
sc_take_big(const struct sc_view *view, uint64_t offset, unsigned count, uint64_t *number)
{
    if (!sc_take(view, offset, count, number)) {
        return false;
    }
    *number = __builtin_bswap64(*number) >> (64 - count * 8);
    return true;
}

/* Copies a range that lies in the view. */
static void
sc_view_copy(const struct sc_view *view, uint64_t offset, unsigned char *to, uint64_t length)
{
    if (!view->shared) {
        memcpy(to, view->base + offset, length);
        return;
    }
    while (length > 0) {
        uint64_t word = 0;
        uint64_t piece = SC_WORD - offset % SC_WORD; /* up to the next whole word */
        piece = piece < length ? piece : length;
        sc_take(view, offset, (unsigned)piece, &word);
        memcpy(to, &word, piece);
        offset += piece;
        to += piece;
        length -= piece;
        for (; length >= SC_WORD; offset += SC_WORD, to += SC_WORD, length -= SC_WORD) {
            word = sc_view_word(view, offset);
            memcpy(to, &word, SC_WORD);
        }
    }
}

static bool
sc_view_equals(const struct sc_view *view, uint64_t offset, const char *bytes, uint64_t length)
{
    while (length > 0) {
        uint64_t there, wanted = 0;
        unsigned piece = length < SC_WORD ? (unsigned)length : SC_WORD;
        memcpy(&wanted, bytes, piece);
        if (!sc_take(view, offset, piece, &there) || there != wanted) {
            return false;
        }
        offset += piece;
        bytes += piece;
        length -= piece;
    }
    return true;
}

/* --- msgpack ----------------------------------------------------------------------------------------------------- */

struct sc_item {
    enum { SC_NIL, SC_BOOL, SC_POSITIVE, SC_NEGATIVE, SC_REAL, SC_STRING, SC_BINARY, SC_EXTENSION, SC_LIST, SC_MAP } kind;
    uint64_t number; /* of an integer or boolean, modulo 2^64 */
    double real;
    uint64_t body;     /* offset of the bytes of a string, binary or extension */
    uint64_t length;   /* of these bytes */
    uint64_t children; /* of a list or map (two for each pair) */
    int extension;
    uint64_t end; /* behind the item; of a list or map, behind its head */
};

static bool
sc_sized(const struct sc_view *view, uint64_t offset, unsigned width, uint64_t *size)
{
    *size = 0;
    return width == 0 || sc_take_big(view, offset, width, size);
}

/* A string, binary or extension whose size, `width` bytes of it (or `size` itself for 0), stands behind the first byte. */
static bool
sc_bytes_item(const struct sc_view *view, uint64_t offset, struct sc_item *item, unsigned width, uint64_t size)
{
    uint64_t type = 0, told;
    uint64_t head = 1 + (uint64_t)width;
    if (!sc_sized(view, offset + 1, width, &told)) {
        return false;
    }
    item->length = width == 0 ? size : told;
    if (item->kind == SC_EXTENSION) {
        if (!sc_take(view, offset + head, 1, &type)) {
            return false;
        }
        item->extension = (int)(type < 128 ? type : type - 256);
        head++;
    }
    item->body = offset + head;
    item->end = item->body + item->length;
    return item->body <= view->length && item->length <= view->length - item->body;
}

static bool
sc_container_item(const struct sc_view *view, uint64_t offset, struct sc_item *item, unsigned width, uint64_t count)
{
    uint64_t told;
    if (!sc_sized(view, offset + 1, width, &told)) {
        return false;
    }
    item->children = (width == 0 ? count : told) * (item->kind == SC_MAP ? 2 : 1);
    item->end = offset + 1 + width;
    return item->children <= view->length - item->end; /* each has a byte at least */
}

static bool
sc_number_item(const struct sc_view *view, uint64_t offset, struct sc_item *item, unsigned width, bool is_signed)
{
    if (!sc_take_big(view, offset + 1, width, &item->number)) {
        return false;
    }
    item->kind = SC_POSITIVE;
    if (is_signed && item->number >> (width * 8 - 1) != 0) {
        item->kind = SC_NEGATIVE;
        item->number |= width == 8 ? 0 : UINT64_MAX << width * 8;
    }
    item->end = offset + 1 + width;
    return true;
}

static bool
sc_real_item(const struct sc_view *view, uint64_t offset, struct sc_item *item, unsigned width)
{
    uint64_t bits;
    if (!sc_take_big(view, offset + 1, width, &bits)) {
        return false;
    }
    item->kind = SC_REAL;
    item->end = offset + 1 + width;
    if (width == 8) {
        memcpy(&item->real, &bits, sizeof item->real);
    }
    else {
        uint32_t half = (uint32_t)bits;
        float single;
        memcpy(&single, &half, sizeof single);
        item->real = single;
    }
    return true;
}

/* The item at `offset`; false where there is none that lies in the view. */
static bool
sc_item_at(const struct sc_view *view, uint64_t offset, struct sc_item *item)
{
    uint64_t first;
    if (!sc_take(view, offset, 1, &first)) {
        return false;
    }
    item->end = offset + 1;
    if (first < 0x80 || first >= 0xE0) {
        item->kind = first < 0x80 ? SC_POSITIVE : SC_NEGATIVE;
        item->number = first < 0x80 ? first : first | UINT64_MAX << 8;
        return true;
    }
    if (first < 0x90) {
        item->kind = SC_MAP;
        return sc_container_item(view, offset, item, 0, first & 0x0F);
    }
    if (first < 0xA0) {
        item->kind = SC_LIST;
        return sc_container_item(view, offset, item, 0, first & 0x0F);
    }
    if (first < 0xC0) {
        item->kind = SC_STRING;
        return sc_bytes_item(view, offset, item, 0, first & 0x1F);
    }
    switch (first) {
    case 0xC0:
        item->kind = SC_NIL;
        return true;
    case 0xC2:
    case 0xC3:
        item->kind = SC_BOOL;
        item->number = first & 1;
        return true;
    case 0xC4:
    case 0xC5:
    case 0xC6:
        item->kind = SC_BINARY;
        return sc_bytes_item(view, offset, item, 1u << (first - 0xC4), 0);
    case 0xC7:
    case 0xC8:
    case 0xC9:
        item->kind = SC_EXTENSION;
        return sc_bytes_item(view, offset, item, 1u << (first - 0xC7), 0);
    case 0xCA:
    case 0xCB:
        return sc_real_item(view, offset, item, first == 0xCA ? 4 : 8);
    case 0xCC:
    case 0xCD:
    case 0xCE:
    case 0xCF:
        return sc_number_item(view, offset, item, 1u << (first - 0xCC), false);
    case 0xD0:
    case 0xD1:
    case 0xD2:
    case 0xD3:
        return sc_number_item(view, offset, item, 1u << (first - 0xD0), true);
    case 0xD4:
    case 0xD5:
    case 0xD6:
    case 0xD7:
    case 0xD8:
        item->kind = SC_EXTENSION;
        return sc_bytes_item(view, offset, item, 0, UINT64_C(1) << (first - 0xD4));
    case 0xD9:
    case 0xDA:
    case 0xDB:
        item->kind = SC_STRING;
        return sc_bytes_item(view, offset, item, 1u << (first - 0xD9), 0);
    case 0xDC:
    case 0xDD:
        item->kind = SC_LIST;
        return sc_container_item(view, offset, item, first == 0xDC ? 2 : 4, 0);
    case 0xDE:
    case 0xDF:
        item->kind = SC_MAP;
        return sc_container_item(view, offset, item, first == 0xDE ? 2 : 4, 0);
    default: /* 0xC1 is no item */
        return false;
    }
}

static bool
sc_is_container(const struct sc_item *item)
{
    return item->kind == SC_LIST || item->kind == SC_MAP;
}

/* --- the index [3] ----------------------------------------------------------------------------------------------- */

struct sc_table {
    uint64_t at;     /* its offset in the index */
    uint32_t count;  /* entries or elements */
    uint32_t second; /* bits of a hash table, stride of a list's */
    uint64_t length; /* bytes of the map or list in the payload */
};

static bool
sc_table_at(const struct sc_view *index, uint64_t offset, struct sc_table *table)
{
    uint64_t head;
    if (offset % SC_WORD != 0 || !sc_take(index, offset, 8, &head) || !sc_take(index, offset + 8, 8, &table->length)) {
        return false;
    }
    table->at = offset;
    table->count = (uint32_t)head;
    table->second = (uint32_t)(head >> 32);
    return true;
}

/* The entries of a tag's bucket in a hash table: `count` words from `offset` on. */
static bool
sc_bucket(const struct sc_view *index, const struct sc_table *table, uint32_t tag, uint64_t *offset, uint32_t *count)
{
    uint32_t bits = table->second;
    uint64_t first, last;
    if (bits > 31) {
        return false;
    }
    uint64_t bucket = bits == 0 ? 0 : (uint32_t)(tag * UINT32_C(0x9E3779B1)) >> (32 - bits);
    uint64_t starts = table->at + 16;
    uint64_t entries = starts + sc_aligned(4 * ((UINT64_C(1) << bits) + 1));
    /* Hashes spread evenly, so the bucket's entries are near here: their page is fetched while the starts are. */
    sc_prefetch(index, entries + 8 * (bucket * table->count >> bits));
    if (!sc_take(index, starts + 4 * bucket, 4, &first) || !sc_take(index, starts + 4 * bucket + 4, 4, &last) ||
        first > last || last > table->count) {
        return false;
    }
    *offset = entries + 8 * first;
    *count = (uint32_t)(last - first);
    return *offset <= index->length && 8 * (last - first) <= index->length - *offset;
}

/* The table of the map or list that begins at `offset` of the payload: SHMCONF_OK, SHMCONF_MISSING where it has none, or
 * SHMCONF_CORRUPT. It costs what is in a bucket, in which hostile bytes may have put everything: nothing that is done
 * for each item of a payload may ask for it. */
static int
sc_table_of(const struct sc_content *content, uint64_t offset, struct sc_table *table)
{
    const struct sc_view *index = &content->index;
    struct sc_table directory;
    uint64_t head, at, entry;
    uint32_t count;
    if (index->length == 0) {
        return SHMCONF_MISSING;
    }
    if (!sc_take(index, 0, 8, &head)) {
        return SHMCONF_CORRUPT;
    }
    if ((uint32_t)head != SC_INDEX_KIND) {
        return SHMCONF_MISSING;
    }
    if (!sc_table_at(index, (head >> 32) * SC_WORD, &directory) ||
        !sc_bucket(index, &directory, (uint32_t)offset, &at, &count)) {
        return SHMCONF_CORRUPT;
    }
    for (; count > 0; count--, at += 8) {
        if (!sc_take(index, at, 8, &entry)) {
            return SHMCONF_CORRUPT;
        }
        if (entry >> 32 == offset) {
            return sc_table_at(index, (entry & UINT32_MAX) * SC_WORD, table) ? SHMCONF_OK : SHMCONF_CORRUPT;
        }
    }
    return SHMCONF_MISSING;
}

/* Where the `count` items from `offset` on end, by walking through them. */
static bool
sc_walk(const struct sc_view *payload, uint64_t offset, uint64_t count, uint64_t *end)
{
    struct sc_item item;
    *end = offset;
    for (uint64_t pending = count; pending > 0; pending--) {
        if (pending > payload->length - *end || !sc_item_at(payload, *end, &item)) {
            return false;
        }
        *end = item.end;
        pending += sc_is_container(&item) ? item.children : 0;
    }
    return true;
}

/* Where the item at `offset` ends: told by its table where it has one, else by walking. */
static bool
sc_end_of(const struct sc_content *content, uint64_t offset, uint64_t *end)
{
    struct sc_item item;
    struct sc_table table;
    if (!sc_item_at(&content->payload, offset, &item)) {
        return false;
    }
    *end = item.end;
    if (!sc_is_container(&item)) {
        return true;
    }
    switch (sc_table_of(content, offset, &table)) {
    case SHMCONF_OK:
        *end = offset + table.length;
        return *end > offset && *end <= content->payload.length;
    case SHMCONF_MISSING:
        return sc_walk(&content->payload, offset, 1, end);
    default:
        return false;
    }
}

/* --- keys -------------------------------------------------------------------------------------------------------- */

/* A part as maps and lists are asked for it. */
struct sc_key {
    const shmconf_part *part;
    bool is_integer; /* an integer, a boolean, or a float that is an integer: `number`, and `negative` */
    bool negative;
    uint64_t number;
    bool is_index; /* may index a list: `number` */
    uint32_t hash;
};

/* Whether a float is an integer of 64 bits, and which. */
static bool
sc_is_integer(double real, bool *negative, uint64_t *number)
{
    *negative = real < 0;
    if (real >= -9223372036854775808.0 && real < 0) {
        int64_t whole = (int64_t)real;
        *number = (uint64_t)whole;
        return (double)whole == real;
    }
    if (real >= 0 && real < 18446744073709551616.0) {
        *number = (uint64_t)real;
        return (double)*number == real;
    }
    return false;
}

/* Digits without a needless zero; more than 18 of them no list has. */
static bool
sc_is_index_text(const char *text, size_t length, uint64_t *number)
{
    if (length == 0 || length > 18 || (length > 1 && text[0] == '0')) {
        return false;
    }
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        *number = *number * 10 + (uint64_t)(text[i] - '0');
    }
    return true;
}

/* `width` digits as a number, or -1. */
static int64_t
sc_digits(const char *text, int width)
{
    int64_t number = 0;
    for (int i = 0; i < width; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

/* HH:MM, then :SS, then six decimals, as far as they are there: in microseconds; *text moves behind it. -1 for none. */
static int64_t
sc_clock(const char **text)
{
    static const int64_t units[] = {3600000000, 60000000, 1000000};
    int64_t total = 0;
    for (int unit = 0; unit < 3; unit++) {
        if (unit > 0 && **text != ':') {
            return unit == 1 ? -1 : total;
        }
        *text += unit > 0;
        int64_t number = sc_digits(*text, 2);
        if (number < 0) {
            return -1;
        }
        total += number * units[unit];
        *text += 2;
    }
    if (**text != '.') {
        return total;
    }
    int64_t decimals = sc_digits(++*text, 6);
    *text += 6;
    return decimals < 0 ? -1 : total + decimals;
}

/* The date and time with an offset that `length` bytes from `offset` on tell, in microseconds since a day long ago. */
static bool
sc_instant(const struct sc_view *view, uint64_t offset, uint64_t length, int64_t *instant)
{
    char text[64] = {0};
    if (length < sizeof "1979-05-27T07:32Z" - 1 || length > 48) { /* so all that is looked at lies in `text` */
        return false;
    }
    sc_view_copy(view, offset, (unsigned char *)text, length);
    int64_t year = sc_digits(text, 4), month = sc_digits(text + 5, 2), day = sc_digits(text + 8, 2);
    if (year < 0 || month < 1 || month > 12 || day < 1 || text[4] != '-' || text[7] != '-' || text[10] != 'T') {
        return false;
    }
    /* Years that begin in March end with the day that not all of them have. */
    int64_t since_march = (month + 9) % 12;
    year -= month < 3;
    int64_t days = year * 365 + (year < 0 ? -1 : year / 4 - year / 100 + year / 400) + (since_march * 306 + 5) / 10 + day;
    const char *at = text + 11;
    int64_t clock = sc_clock(&at);
    char sign = *at++;
    int64_t ahead = sign == 'Z' ? 0 : sign == '+' || sign == '-' ? sc_clock(&at) : -1;
    *instant = days * 86400000000 + clock - (sign == '-' ? -ahead : ahead);
    return clock >= 0 && ahead >= 0 && (uint64_t)(at - text) == length;
}

static bool
sc_is_same_instant(const struct sc_view *payload, const struct sc_item *item, const shmconf_part *part)
{
    struct sc_view wanted = {.base = (const unsigned char *)part->bytes, .length = part->length, .shared = false};
    int64_t one, other;
    return sc_instant(payload, item->body, item->length, &one) && sc_instant(&wanted, 0, part->length, &other) &&
           one == other;
}

static struct sc_key
sc_key_of(const shmconf_part *part)
{
    struct sc_key key = {.part = part};
    switch (part->kind) {
    case SHMCONF_TEXT:
        key.is_index = sc_is_index_text(part->bytes, part->length, &key.number);
        key.hash = sc_crc_of_key(part->bytes, part->length);
        break;
    case SHMCONF_STRING:
    case SHMCONF_BINARY:
        key.hash = sc_crc_of_key(part->bytes, part->length);
        break;
    case SHMCONF_EXTENSION:
        if (part->extension >= 1 && part->extension < SC_INSTANT) {
            key.hash = sc_crc_of_key(part->bytes, part->length);
        }
        break;
    case SHMCONF_INTEGER:
    case SHMCONF_BOOLEAN:
        key.is_integer = true;
        key.number = part->number;
        key.negative = part->kind == SHMCONF_INTEGER && part->negative;
        key.is_index = part->kind == SHMCONF_INTEGER && !key.negative;
        key.hash = sc_crc_of_key(&key.number, sizeof key.number);
        break;
    case SHMCONF_FLOAT:
        key.is_integer = sc_is_integer(part->real, &key.negative, &key.number);
        key.hash = key.is_integer ? sc_crc_of_key(&key.number, sizeof key.number)
                                  : sc_crc_of_key(&part->real, sizeof part->real);
        break;
    case SHMCONF_NIL:
        break;
    }
    return key;
}

/* Whether the item is this key, as Python's dict would have it. */
static bool
sc_is_key(const struct sc_view *payload, const struct sc_item *item, const struct sc_key *key)
{
    const shmconf_part *part = key->part;
    bool negative;
    uint64_t number;
    switch (item->kind) {
    case SC_STRING:
        return (part->kind == SHMCONF_TEXT || part->kind == SHMCONF_STRING) && item->length == part->length &&
               sc_view_equals(payload, item->body, part->bytes, part->length);
    case SC_BINARY:
        return part->kind == SHMCONF_BINARY && item->length == part->length &&
               sc_view_equals(payload, item->body, part->bytes, part->length);
    case SC_EXTENSION:
        if (part->kind != SHMCONF_EXTENSION || item->extension != part->extension) {
            return false;
        }
        if (part->extension == SC_INSTANT) {
            return sc_is_same_instant(payload, item, part);
        }
        return item->length == part->length && sc_view_equals(payload, item->body, part->bytes, part->length);
    case SC_BOOL:
    case SC_POSITIVE:
    case SC_NEGATIVE:
        return key->is_integer && key->number == item->number && key->negative == (item->kind == SC_NEGATIVE);
    case SC_REAL:
        if (sc_is_integer(item->real, &negative, &number)) {
            return key->is_integer && key->number == number && key->negative == negative;
        }
        return part->kind == SHMCONF_FLOAT && !key->is_integer && part->real == item->real;
    case SC_NIL:
        return part->kind == SHMCONF_NIL;
    case SC_LIST:
    case SC_MAP:
        break;
    }
    return false;
}

/* --- looking a path up -------------------------------------------------------------------------------------------
 * Results: SHMCONF_OK, SHMCONF_MISSING, or SHMCONF_CORRUPT for a bound that failed, which is damage only if the
 * slot's counter did not change meanwhile. */

static int
sc_find_by_table(const struct sc_content *content, const struct sc_table *table, const struct sc_key *key,
                 uint64_t *value)
{
    const struct sc_view *index = &content->index;
    struct sc_item item;
    uint64_t at, entry;
    uint32_t count;
    if (!sc_bucket(index, table, key->hash, &at, &count)) {
        return SHMCONF_CORRUPT;
    }
    for (; count > 0; count--, at += 8) {
        if (!sc_take(index, at, 8, &entry)) {
            return SHMCONF_CORRUPT;
        }
        if (entry >> 32 != key->hash) {
            continue;
        }
        for (uint64_t ahead = 0; ahead < SC_SMALL; ahead += 64) { /* the pair, which will be walked if it has no table */
            sc_prefetch(&content->payload, (entry & UINT32_MAX) + ahead);
        }
        if (!sc_item_at(&content->payload, entry & UINT32_MAX, &item)) {
            return SHMCONF_CORRUPT;
        }
        if (sc_is_key(&content->payload, &item, key)) {
            *value = item.end;
            return SHMCONF_OK;
        }
    }
    return SHMCONF_MISSING;
}

static int
sc_find_in_map(const struct sc_content *content, uint64_t offset, const struct sc_item *map, const struct sc_key *key,
               uint64_t *value)
{
    struct sc_table table;
    struct sc_item item;
    int result = sc_table_of(content, offset, &table);
    if (result != SHMCONF_MISSING) {
        return result == SHMCONF_OK ? sc_find_by_table(content, &table, key, value) : result;
    }
    uint64_t at = map->end;
    for (uint64_t pairs = map->children / 2; pairs > 0; pairs--) {
        if (!sc_item_at(&content->payload, at, &item)) {
            return SHMCONF_CORRUPT;
        }
        if (sc_is_key(&content->payload, &item, key)) {
            *value = item.end;
            return SHMCONF_OK;
        }
        if (!sc_walk(&content->payload, at, 2, &at)) { /* what has no table has none in it */
            return SHMCONF_CORRUPT;
        }
    }
    return SHMCONF_MISSING;
}

static int
sc_find_in_list(const struct sc_content *content, uint64_t offset, const struct sc_item *list, const struct sc_key *key,
                uint64_t *value)
{
    struct sc_table table;
    if (!key->is_index || key->number >= list->children) {
        return SHMCONF_MISSING;
    }
    int result = sc_table_of(content, offset, &table);
    if (result == SHMCONF_MISSING) {
        return sc_walk(&content->payload, list->end, key->number, value) ? SHMCONF_OK : SHMCONF_CORRUPT;
    }
    if (result != SHMCONF_OK || table.second == 0 || table.second > SC_LARGEST_STRIDE ||
        !sc_take(&content->index, table.at + 16 + 4 * (key->number / table.second), 4, value)) {
        return SHMCONF_CORRUPT;
    }
    for (uint64_t steps = key->number % table.second; steps > 0; steps--) {
        if (!sc_end_of(content, *value, value)) {
            return SHMCONF_CORRUPT;
        }
    }
    return SHMCONF_OK;
}

static int
sc_find(const struct sc_content *content, const shmconf_part *parts, size_t count, uint64_t *offset, uint64_t *length)
{
    uint64_t at = 0, end;
    struct sc_item item;
    for (size_t i = 0; i < count; i++) {
        if (!sc_item_at(&content->payload, at, &item)) {
            return SHMCONF_CORRUPT;
        }
        struct sc_key key = sc_key_of(&parts[i]);
        int result = item.kind == SC_MAP    ? sc_find_in_map(content, at, &item, &key, &at)
                     : item.kind == SC_LIST ? sc_find_in_list(content, at, &item, &key, &at)
                                            : SHMCONF_MISSING;
        if (result != SHMCONF_OK) {
            return result;
        }
    }
    if (!sc_end_of(content, at, &end)) {
        return SHMCONF_CORRUPT;
    }
    *offset = at;
    *length = end - at;
    return SHMCONF_OK;
}

static struct sc_view
sc_private(const void *bytes, size_t length)
{
    return (struct sc_view){.base = bytes, .length = length, .shared = false};
}

SHMCONF_API int
shmconf_find(const void *payload, size_t payload_length, const void *index, size_t index_length,
             const shmconf_part *parts, size_t count, size_t *offset, size_t *length)
{
    struct sc_content content = {sc_private(payload, payload_length), sc_private(index, index_length)};
    uint64_t at, bytes;
    int result = sc_find(&content, parts, count, &at, &bytes);
    if (result == SHMCONF_OK) {
        *offset = at;
        *length = bytes;
    }
    return result;
}

/* --- paths ------------------------------------------------------------------------------------------------------- */

static bool
sc_is_bare(char character)
{
    return (character >= 'A' && character <= 'Z') || (character >= 'a' && character <= 'z') ||
           (character >= '0' && character <= '9') || character == '_' || character == '-';
}

static bool
sc_is_control(char character)
{
    unsigned char code = (unsigned char)character;
    return (code < 0x20 && code != '\t') || code == 0x7F;
}

static size_t
sc_encode_utf8(uint32_t code, char *to)
{
    if (code < 0x80) {
        to[0] = (char)code;
        return 1;
    }
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    for (size_t i = more; i > 0; i--, code >>= 6) {
        to[i] = (char)(0x80 | (code & 0x3F));
    }
    to[0] = (char)((more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0) | code);
    return more + 1;
}

/* The escape behind a backslash: decoded to *to, which moves on; the bytes taken, or 0 for none of the grammar. */
static size_t
sc_unescape(const char *text, size_t length, char **to)
{
    static const char letters[] = "btnfre\"\\", meant[] = "\b\t\n\f\r\x1b\"\\";
    if (length == 0 || text[0] == '\0') {
        return 0;
    }
    const char *letter = strchr(letters, text[0]);
    if (letter != NULL) {
        *(*to)++ = meant[letter - letters];
        return 1;
    }
    size_t digits = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : text[0] == 'U' ? 8 : 0;
    uint64_t code = 0;
    if (digits == 0 || length < 1 + digits) {
        return 0;
    }
    for (size_t i = 1; i <= digits; i++) {
        char digit = text[i];
        uint64_t value = digit >= '0' && digit <= '9'   ? (uint64_t)(digit - '0')
                         : digit >= 'a' && digit <= 'f' ? (uint64_t)(digit - 'a' + 10)
                         : digit >= 'A' && digit <= 'F' ? (uint64_t)(digit - 'A' + 10)
                                                        : 16;
        if (value == 16) {
            return 0;
        }
        code = code << 4 | value;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        return 0;
    }
    *to += sc_encode_utf8((uint32_t)code, *to);
    return 1 + digits;
}

/* One part from `at` on: decoded to *to, which moves on; where it ends, or 0 for none of the grammar. */
static size_t
sc_parse_part(const char *text, size_t length, size_t at, char **to)
{
    if (at == length) {
        return 0;
    }
    char quote = text[at];
    if (quote != '"' && quote != '\'') {
        size_t end = at;
        while (end < length && sc_is_bare(text[end])) {
            *(*to)++ = text[end++];
        }
        return end == at ? 0 : end;
    }
    for (at++; at < length && text[at] != quote; at++) {
        if (sc_is_control(text[at])) {
            return 0;
        }
        if (quote == '"' && text[at] == '\\') {
            size_t taken = sc_unescape(text + at + 1, length - at - 1, to);
            if (taken == 0) {
                return 0;
            }
            at += taken;
        }
        else {
            *(*to)++ = text[at];
        }
    }
    return at == length ? 0 : at + 1;
}

static size_t
sc_skip_space(const char *text, size_t length, size_t at)
{
    while (at < length && (text[at] == ' ' || text[at] == '\t')) {
        at++;
    }
    return at;
}

SHMCONF_API ptrdiff_t
shmconf_path_parse(const char *text, size_t length, char *scratch, shmconf_part *parts, size_t capacity)
{
    ptrdiff_t count = 0;
    size_t at = 0;
    char *to = scratch;
    for (;;) {
        const char *begin = to;
        at = sc_parse_part(text, length, sc_skip_space(text, length, at), &to);
        if (at == 0) {
            return -1;
        }
        if ((size_t)count < capacity) {
            parts[count] = (shmconf_part){.kind = SHMCONF_TEXT, .bytes = begin, .length = (size_t)(to - begin)};
        }
        count++;
        at = sc_skip_space(text, length, at);
        if (at == length) {
            return count;
        }
        if (text[at] != '.') {
            return -1;
        }
        at++;
    }
}

/* A parsed path: in place where it is short, as nearly all are. */
struct sc_path {
    shmconf_part few[16];
    char short_scratch[256];
    shmconf_part *parts;
    char *scratch;
    size_t count;
};

static void
sc_path_free(struct sc_path *path)
{
    if (path->parts != path->few) {
        free(path->parts);
    }
    if (path->scratch != path->short_scratch) {
        free(path->scratch);
    }
}

static int
sc_path_of(struct sc_path *path, const char *text, shmconf_fault *fault)
{
    size_t length = strlen(text);
    path->parts = path->few;
    path->scratch = length <= sizeof path->short_scratch ? path->short_scratch : malloc(length);
    if (path->scratch == NULL) {
        return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory for a path");
    }
    size_t capacity = sizeof path->few / sizeof *path->few;
    ptrdiff_t count = shmconf_path_parse(text, length, path->scratch, path->parts, capacity);
    if (count > (ptrdiff_t)capacity) {
        path->parts = malloc((size_t)count * sizeof *path->parts);
        if (path->parts == NULL) {
            path->parts = path->few;
            sc_path_free(path);
            return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory for a path");
        }
        count = shmconf_path_parse(text, length, path->scratch, path->parts, (size_t)count);
    }
    if (count < 0) {
        sc_path_free(path);
        return sc_fail(fault, SHMCONF_BAD_PATH, 0, "'%s' is not a dotted path: write db.pool.size or \"a b\".c", text);
    }
    path->count = (size_t)count;
    return SHMCONF_OK;
}

/* --- opening a segment [5] ---------------------------------------------------------------------------------------- */

static bool
sc_is_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > 64 || name[0] == '.' || name[0] == '_' || name[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (!sc_is_bare(name[i]) && name[i] != '.') {
            return false;
        }
    }
    return true;
}

/* SHMCONF_OK where a file like this may be a segment in such a directory. */
static int
sc_check_trust(const struct stat *file, const struct stat *directory, bool named, const char *path,
               shmconf_fault *fault)
{
    uid_t caller = geteuid();
    if (!named && (directory->st_uid != caller || (directory->st_mode & 077) != 0)) {
        return sc_fail(fault, SHMCONF_UNTRUSTED, 0, "the directory of %s must be this user's own, with mode 0700", path);
    }
    if (S_ISLNK(file->st_mode)) {
        return sc_fail(fault, SHMCONF_UNTRUSTED, 0, "%s is a symbolic link; a segment never is", path);
    }
    if (!S_ISREG(file->st_mode)) {
        return sc_fail(fault, SHMCONF_UNTRUSTED, 0, "%s is not a regular file", path);
    }
    if ((file->st_mode & 022) != 0) {
        return sc_fail(fault, SHMCONF_UNTRUSTED, 0, "%s is writable by its group or by others (mode %04o)", path,
                       (unsigned)file->st_mode & 07777);
    }
    bool is_owners = named && (directory->st_mode & 022) == 0 && file->st_uid == directory->st_uid;
    if (file->st_uid != 0 && file->st_uid != caller && !is_owners) {
        return sc_fail(fault, SHMCONF_UNTRUSTED, 0,
                       "%s belongs to user %lu, who is neither root, the caller nor the owner of a directory that only "
                       "they may write",
                       path, (unsigned long)file->st_uid);
    }
    return SHMCONF_OK;
}

static int
sc_open_failed(const char *path, shmconf_fault *fault)
{
    int system_error = errno;
    if (system_error == ENOENT) {
        return sc_fail(fault, SHMCONF_NOT_FOUND, system_error, "no segment %s", path);
    }
    return sc_fail(fault, SHMCONF_UNTRUSTED, system_error, "cannot open %s: %s", path, strerror(system_error));
}

/* Opens the file after all trust checks: *fd, and what fstat says of it. */
static int
sc_open_in(int directory_fd, const char *file_name, bool named, const char *path, int *fd, struct stat *found,
           shmconf_fault *fault)
{
    struct stat directory;
    if (fstatat(directory_fd, file_name, found, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == EACCES) { /* the directory may not be entered */
            return sc_fail(fault, SHMCONF_NOT_FOUND, EACCES, "no permission to look for %s", path);
        }
        return sc_open_failed(path, fault);
    }
    if (fstat(directory_fd, &directory) != 0) {
        return sc_open_failed(path, fault);
    }
    /* Looked at before it is opened, as opening a device or a FIFO can have effects of its own, and again after. */
    int result = sc_check_trust(found, &directory, named, path, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    *fd = openat(directory_fd, file_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        return sc_open_failed(path, fault);
    }
    result = fstat(*fd, found) != 0 ? sc_open_failed(path, fault)
                                    : sc_check_trust(found, &directory, named, path, fault);
    if (result != SHMCONF_OK) {
        close(*fd);
    }
    return result;
}

/* The fixed part of the header, checked [1]. */
static int
sc_read_header(shmconf_segment *segment, uint64_t size, shmconf_fault *fault)
{
    unsigned char fixed[SC_FIXED];
    uint32_t format, checksum;
    uint64_t floor;
    if (pread(sc_descriptor(segment), fixed, sizeof fixed, 0) != (ssize_t)sizeof fixed || memcmp(fixed, SC_MAGIC, 8) != 0) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: it does not begin like a shmconf segment", segment->path);
    }
    memcpy(&format, fixed + 8, sizeof format);
    if (format != SC_FORMAT) {
        return sc_fail(fault, SHMCONF_INCOMPATIBLE, 0, "%s: it has format %lu; this library reads format %d",
                       segment->path, (unsigned long)format, SC_FORMAT);
    }
    memcpy(&checksum, fixed + SC_FIXED_CHECKSUM, sizeof checksum);
    if (checksum != sc_crc(sc_crc_tables(segment), 0, fixed, SC_FIXED_CHECKSUM)) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the header's checksum does not fit", segment->path);
    }
    memcpy(&segment->epoch, fixed + 16, 8);
    memcpy(&segment->mapped, fixed + 24, 8);
    memcpy(&floor, fixed + 40, 8);
    bool in_range = segment->mapped >= SC_ROOMS_BASE + SC_PAGE && segment->mapped <= SC_MAX_MAX_BYTES &&
                    segment->mapped % SC_PAGE == 0;
    if (segment->epoch == 0 || !in_range || floor >= SC_VERSION_MASK) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the header's numbers are out of range", segment->path);
    }
    if (size < SC_ROOMS_BASE) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: it is cut short: %llu bytes, where its header area alone has %d",
                       segment->path, (unsigned long long)size, SC_ROOMS_BASE);
    }
    return SHMCONF_OK;
}

static int
sc_map(shmconf_segment *segment, shmconf_fault *fault)
{
    /* max_bytes at once: the file may grow under the mapping, and what it has not yet is never touched. */
    void *base = mmap(NULL, segment->mapped, PROT_READ, MAP_SHARED, sc_descriptor(segment), 0);
    if (base == MAP_FAILED) {
        return sc_fail(fault, SHMCONF_CORRUPT, errno, "%s: cannot be mapped: [Errno %d] %s", segment->path, errno,
                       strerror(errno));
    }
    segment->base = base;
    return SHMCONF_OK;
}

SHMCONF_API void
shmconf_segment_close(shmconf_segment *segment)
{
    if (segment == NULL) {
        return;
    }
    if (segment->base != NULL) {
        munmap((void *)segment->base, segment->mapped);
    }
    struct stat found;
    if (sc_is_of_file(segment, sc_descriptor(segment), &found)) {
        close(sc_descriptor(segment));
    }
    free(segment->path);
    free(segment);
}

SHMCONF_API int
shmconf_segment_open(shmconf_segment **opened, const char *directory, bool named, const char *name,
                     shmconf_fault *fault)
{
    *opened = NULL;
    if (!sc_is_name(name)) {
        return sc_fail(fault, SHMCONF_BAD_NAME, 0,
                       "'%s' is not a segment name: use letters, digits, '.', '_' and '-', at most 64, the first a "
                       "letter or digit",
                       name);
    }
    shmconf_segment *segment = calloc(1, sizeof *segment);
    size_t room = strlen(directory) + strlen(name) + sizeof "/.shmconf";
    char *path = malloc(room);
    if (segment == NULL || path == NULL) {
        free(segment);
        free(path);
        return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory to open segment '%s'", name);
    }
    int fd = -1;
    atomic_init(&segment->fd, -1);
    segment->path = path;
    int prefix = snprintf(path, room, "%s/", directory);
    snprintf(path + prefix, room - (size_t)prefix, "%s.shmconf", name);
    sc_crc_prepare(segment->crc);

    int result;
    struct stat found;
    int directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC | (named ? 0 : O_NOFOLLOW));
    if (directory_fd < 0) {
        result = errno == EACCES   ? sc_fail(fault, SHMCONF_NOT_FOUND, EACCES, "no permission to look for %s", path)
                 : errno == ENOENT ? sc_fail(fault, SHMCONF_NOT_FOUND, ENOENT, "no segment %s", path)
                                   : sc_fail(fault, SHMCONF_UNTRUSTED, errno, "cannot open the directory %s: %s",
                                             directory, strerror(errno));
    }
    else {
        result = sc_open_in(directory_fd, path + prefix, named, path, &fd, &found, fault);
        close(directory_fd);
    }
    if (result == SHMCONF_OK) {
        atomic_store_explicit(&segment->fd, fd, memory_order_relaxed); /* else sc_open_in has closed it */
        segment->device = found.st_dev;
        segment->inode = found.st_ino;
        segment->patience = SC_SECOND;
        atomic_init(&segment->known, (uint64_t)found.st_size);
        atomic_init(&segment->retries, 0);
        result = sc_read_header(segment, (uint64_t)found.st_size, fault);
    }
    if (result == SHMCONF_OK) {
        result = sc_map(segment, fault);
    }
    if (result != SHMCONF_OK) {
        shmconf_segment_close(segment);
        return result;
    }
    *opened = segment;
    return SHMCONF_OK;
}

/* --- a segment's words -------------------------------------------------------------------------------------------- */

SHMCONF_API void
shmconf_segment_set_patience(shmconf_segment *segment, int64_t patience)
{
    segment->patience = patience;
}

SHMCONF_API uint64_t
shmconf_segment_epoch(const shmconf_segment *segment)
{
    return segment->epoch;
}

SHMCONF_API uint64_t
shmconf_segment_retries(const shmconf_segment *segment)
{
    return atomic_load_explicit(&segment->retries, memory_order_relaxed);
}

SHMCONF_API const uint64_t *
shmconf_segment_latest(const shmconf_segment *segment)
{
    return (const uint64_t *)(const void *)(segment->base + SC_LATEST);
}

SHMCONF_API bool
shmconf_segment_is_linked(const shmconf_segment *segment)
{
    struct stat found;
    return lstat(segment->path, &found) == 0 && found.st_dev == segment->device && found.st_ino == segment->inode;
}

SHMCONF_API int64_t
shmconf_segment_heartbeat_age(const shmconf_segment *segment)
{
    uint64_t beat = sc_acquire(segment, SC_HEARTBEAT);
    uint64_t now = (uint64_t)sc_now();
    return beat != 0 && beat <= now ? (int64_t)(now - beat) : -1; /* a beat in the future: the clock began anew */
}

static _Atomic uint32_t *
sc_wake(const shmconf_segment *segment)
{
    return (_Atomic uint32_t *)(void *)(segment->base + SC_WAKE);
}

SHMCONF_API uint32_t
shmconf_segment_wake_word(const shmconf_segment *segment)
{
    /* Pairs with the release of the writer's bump, which follows its store of `latest`. */
    return atomic_load_explicit(sc_wake(segment), memory_order_acquire);
}

SHMCONF_API int
shmconf_segment_sleep(const shmconf_segment *segment, uint32_t seen, double seconds)
{
    seconds = seconds > 0 ? (seconds < 1e9 ? seconds : 1e9) : 0;
    struct timespec timeout = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
#ifdef __linux__
    /* Not FUTEX_PRIVATE_FLAG: the waker is another process. The kernel orders the comparison against the writer's bump,
     * so no wake-up is lost between the load of `seen` and this sleep. */
    if (syscall(SYS_futex, sc_wake(segment), FUTEX_WAIT, seen, &timeout, NULL, 0) == 0 || errno == EAGAIN ||
        errno == ETIMEDOUT) {
        return SHMCONF_OK;
    }
    return errno == EINTR ? SHMCONF_INTERRUPTED : SHMCONF_SYSTEM;
#else
    int64_t deadline = sc_now() + timeout.tv_sec * SC_SECOND + timeout.tv_nsec;
    while (shmconf_segment_wake_word(segment) == seen && sc_now() < deadline) {
        struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
        if (nanosleep(&pause, NULL) != 0) {
            return SHMCONF_INTERRUPTED;
        }
    }
    return SHMCONF_OK;
#endif
}

/* --- reading a version [5] ---------------------------------------------------------------------------------------- */

struct sc_slot {
    uint64_t offset, stable; /* of the counter, and what it must be */
    uint64_t version, published_at;
    uint64_t room; /* offset of the payload */
    uint64_t payload_length, index_length, metadata_length;
    uint32_t payload_checksum, index_checksum, metadata_checksum;
};

/* SHMCONF_CORRUPT, if the slot was not written anew meanwhile: what was seen then says nothing. */
static int
sc_blame(const shmconf_segment *segment, uint64_t counter_offset, uint64_t stable, shmconf_fault *fault,
         const char *what, uint64_t version)
{
    if (!sc_is_unchanged(segment, counter_offset, stable)) {
        return SC_RETRY;
    }
    return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the %s of version %llu is damaged", segment->path, what,
                   (unsigned long long)version);
}

/* Steps 2 and 3: the slot of `version`, with its sections within the file. */
static int
sc_read_slot(const shmconf_segment *segment, uint64_t version, struct sc_slot *slot, shmconf_fault *fault)
{
    uint64_t words[9]; /* epoch, version, room, and the six words of the descriptor; the last 4 bytes are its checksum */
    slot->offset = SC_SLOT_BASE + version % SC_SLOTS * SC_SLOT_SIZE;
    slot->stable = 2 * version;
    slot->version = version;
    if (sc_acquire(segment, slot->offset) != slot->stable) {
        return SC_RETRY;
    }
    words[0] = segment->epoch;
    words[1] = version;
    words[2] = sc_relaxed(segment, slot->offset + SC_SLOT_ROOM);
    for (uint64_t i = 0; i < 6; i++) {
        words[3 + i] = sc_relaxed(segment, slot->offset + SC_SLOT_DESCRIPTOR + i * SC_WORD);
    }
    if (sc_crc(sc_crc_tables(segment), 0, words, 68) != (uint32_t)(words[8] >> 32)) {
        return sc_blame(segment, slot->offset, slot->stable, fault, "descriptor", version);
    }
    uint64_t page = words[2] & UINT32_MAX, capacity = (words[2] >> 32) * SC_PAGE;
    slot->room = page * SC_PAGE;
    slot->payload_length = words[3];
    slot->index_length = words[4];
    slot->metadata_length = words[5];
    slot->published_at = words[6];
    slot->payload_checksum = (uint32_t)words[7];
    slot->index_checksum = (uint32_t)(words[7] >> 32);
    slot->metadata_checksum = (uint32_t)words[8];
    if (page < SC_FIRST_ROOM_PAGE || slot->payload_length > capacity || slot->index_length > capacity ||
        slot->metadata_length > capacity ||
        sc_aligned(slot->payload_length) + sc_aligned(slot->index_length) + sc_aligned(slot->metadata_length) >
            capacity) {
        return sc_blame(segment, slot->offset, slot->stable, fault, "descriptor", version);
    }
    if (!sc_is_within(segment, slot->room,
                      sc_aligned(slot->payload_length) + sc_aligned(slot->index_length) +
                          sc_aligned(slot->metadata_length))) {
        return sc_blame(segment, slot->offset, slot->stable, fault, "room", version);
    }
    return SHMCONF_OK;
}

static struct sc_view
sc_section(const shmconf_segment *segment, uint64_t offset, uint64_t length)
{
    return (struct sc_view){.base = segment->base + offset, .length = length, .shared = true};
}

/* One try at the version (or status number) that a word names. */
typedef int sc_attempt(shmconf_segment *segment, uint64_t number, void *context, shmconf_fault *fault);

/* Tries until the try is about one version: at once nearly always, and for a second or 2,000 tries at the most; 1,000
 * where it is not to be patient. */
static int
sc_insist(shmconf_segment *segment, uint64_t word_offset, uint64_t mask, bool is_patient, sc_attempt *attempt,
          void *context, shmconf_fault *fault)
{
    int64_t patience_began = 0;
    uint64_t seen = 0;
    for (int tries = 0;;) {
        uint64_t current = sc_acquire(segment, word_offset) & mask;
        if (current == 0) {
            return sc_fail(fault, SHMCONF_NOT_FOUND, 0, "%s: nothing is published yet", segment->path);
        }
        int result = attempt(segment, current, context, fault);
        if (result != SC_RETRY) {
            return result;
        }
        atomic_fetch_add_explicit(&segment->retries, 1, memory_order_relaxed);
        if (tries < INT_MAX) {
            tries++;
        }
        if (tries <= SC_PATIENT_TRIES) {
            continue;
        }
        if (!is_patient) {
            return sc_fail(fault, SHMCONF_BUSY, 0, "%s: no consistent read in %d tries", segment->path, tries);
        }
        if (tries == SC_PATIENT_TRIES + 1) {
            patience_began = sc_now();
            seen = current;
        }
        sched_yield();
        if (tries >= SC_LAST_TRIES && sc_now() - patience_began >= segment->patience) {
            if ((sc_acquire(segment, word_offset) & mask) == seen) {
                return sc_fail(fault, SHMCONF_CORRUPT, 0,
                               "%s: version %llu is named as latest, but its slot is not whole", segment->path,
                               (unsigned long long)seen);
            }
            return sc_fail(fault, SHMCONF_BUSY, 0, "%s: no consistent read in %d tries; it is published without a pause",
                           segment->path, tries);
        }
    }
}

struct sc_get {
    const shmconf_part *parts;
    size_t count;
    unsigned char *buffer;
    size_t capacity;
    uint64_t length, version;
};

static int
sc_try_get(shmconf_segment *segment, uint64_t version, void *context, shmconf_fault *fault)
{
    struct sc_get *get = context;
    struct sc_slot slot;
    uint64_t offset = 0, length = 0;
    int result = sc_read_slot(segment, version, &slot, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    struct sc_content content = {
        sc_section(segment, slot.room, slot.payload_length),
        sc_section(segment, slot.room + sc_aligned(slot.payload_length), slot.index_length),
    };
    sc_prefetch(&content.payload, 0);
    sc_prefetch(&content.index, 0);
    sc_prefetch(&content.index, slot.index_length - 1); /* the directory is at its end */
    result = sc_find(&content, get->parts, get->count, &offset, &length);
    if (result == SHMCONF_CORRUPT) {
        return sc_blame(segment, slot.offset, slot.stable, fault, "payload or index", version);
    }
    if (result == SHMCONF_OK && length > get->capacity) {
        result = sc_fail(fault, SHMCONF_NO_SPACE, 0, "the value has %llu bytes, the buffer %zu",
                         (unsigned long long)length, get->capacity);
    }
    if (result == SHMCONF_OK) {
        sc_view_copy(&content.payload, offset, get->buffer, length);
    }
    if (!sc_is_unchanged(segment, slot.offset, slot.stable)) {
        return SC_RETRY;
    }
    get->length = length;
    get->version = version;
    return result;
}

static int
sc_get_by_parts(shmconf_segment *segment, bool is_patient, struct sc_get *get, size_t *length, uint64_t *version,
                shmconf_fault *fault)
{
    int result = sc_insist(segment, SC_LATEST, SC_VERSION_MASK, is_patient, sc_try_get, get, fault);
    *length = get->length;
    if (version != NULL) {
        *version = get->version;
    }
    return result;
}

SHMCONF_API int
shmconf_segment_get(shmconf_segment *segment, const shmconf_part *parts, size_t count, void *buffer, size_t capacity,
                    size_t *length, uint64_t *version, shmconf_fault *fault)
{
    struct sc_get get = {.parts = parts, .count = count, .buffer = buffer, .capacity = capacity};
    return sc_get_by_parts(segment, true, &get, length, version, fault);
}

SHMCONF_API int
shmconf_segment_get_at_once(shmconf_segment *segment, const shmconf_part *parts, size_t count, void *buffer,
                            size_t capacity, size_t *length, uint64_t *version, shmconf_fault *fault)
{
    struct sc_get get = {.parts = parts, .count = count, .buffer = buffer, .capacity = capacity};
    return sc_get_by_parts(segment, false, &get, length, version, fault);
}

/* The three sections of a slot: where each lies, its length and its checksum. */
struct sc_place_of {
    int section; /* its bit */
    uint64_t offset, length;
    uint32_t checksum;
};

static void
sc_sections(const struct sc_slot *slot, struct sc_place_of places[3])
{
    uint64_t index = slot->room + sc_aligned(slot->payload_length);
    uint64_t metadata = index + sc_aligned(slot->index_length);
    places[0] = (struct sc_place_of){SHMCONF_PAYLOAD, slot->room, slot->payload_length, slot->payload_checksum};
    places[1] = (struct sc_place_of){SHMCONF_INDEX, index, slot->index_length, slot->index_checksum};
    places[2] = (struct sc_place_of){SHMCONF_METADATA, metadata, slot->metadata_length, slot->metadata_checksum};
}

static int
sc_bad_checksum(const shmconf_segment *segment, uint64_t version, shmconf_fault *fault)
{
    return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the checksum of version %llu does not fit its bytes", segment->path,
                   (unsigned long long)version);
}

struct sc_copy {
    int sections;
    shmconf_allocate *allocate;
    void *context;
    shmconf_snapshot *snapshot;
};

static int
sc_try_copy(shmconf_segment *segment, uint64_t version, void *context, shmconf_fault *fault)
{
    struct sc_copy *copy = context;
    struct sc_slot slot;
    struct sc_place_of places[3];
    unsigned char *copies[3] = {NULL, NULL, NULL};
    int result = sc_read_slot(segment, version, &slot, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    sc_sections(&slot, places);
    for (int i = 0; i < 3; i++) {
        if ((copy->sections & places[i].section) == 0) {
            continue;
        }
        copies[i] = copy->allocate(copy->context, places[i].section, places[i].length);
        if (copies[i] == NULL) {
            return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "%s: no memory for a snapshot", segment->path);
        }
        struct sc_view view = sc_section(segment, places[i].offset, places[i].length);
        sc_view_copy(&view, 0, copies[i], places[i].length);
    }
    if (!sc_is_unchanged(segment, slot.offset, slot.stable)) {
        return SC_RETRY;
    }
    for (int i = 0; i < 3; i++) {
        if (copies[i] != NULL && sc_crc(sc_crc_tables(segment), 0, copies[i], places[i].length) != places[i].checksum) {
            return sc_bad_checksum(segment, version, fault);
        }
    }
    *copy->snapshot = (shmconf_snapshot){
        .epoch = segment->epoch,
        .version = version,
        .published_at = slot.published_at,
        .payload = copies[0],
        .payload_length = copies[0] != NULL ? slot.payload_length : 0,
        .index = copies[1],
        .index_length = copies[1] != NULL ? slot.index_length : 0,
        .metadata = copies[2],
        .metadata_length = copies[2] != NULL ? slot.metadata_length : 0,
    };
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_segment_copy(shmconf_segment *segment, int sections, shmconf_allocate *allocate, void *context,
                     shmconf_snapshot *snapshot, shmconf_fault *fault)
{
    struct sc_copy copy = {sections, allocate, context, snapshot};
    return sc_insist(segment, SC_LATEST, SC_VERSION_MASK, true, sc_try_copy, &copy, fault);
}

static int
sc_try_verify(shmconf_segment *segment, uint64_t version, void *context, shmconf_fault *fault)
{
    struct sc_slot slot;
    struct sc_place_of places[3];
    unsigned char piece[SC_PAGE];
    bool fits = true;
    int result = sc_read_slot(segment, version, &slot, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    sc_sections(&slot, places);
    for (int i = 0; i < 3; i++) {
        struct sc_view view = sc_section(segment, places[i].offset, places[i].length);
        uint32_t checksum = 0;
        for (uint64_t at = 0; at < view.length; at += sizeof piece) {
            uint64_t size = view.length - at < sizeof piece ? view.length - at : sizeof piece;
            sc_view_copy(&view, at, piece, size);
            checksum = sc_crc(sc_crc_tables(segment), checksum, piece, size);
        }
        fits = fits && checksum == places[i].checksum;
    }
    if (!sc_is_unchanged(segment, slot.offset, slot.stable)) {
        return SC_RETRY;
    }
    *(uint64_t *)context = version;
    return fits ? SHMCONF_OK : sc_bad_checksum(segment, version, fault);
}

SHMCONF_API int
shmconf_segment_verify(shmconf_segment *segment, uint64_t *version, shmconf_fault *fault)
{
    *version = 0;
    return sc_insist(segment, SC_LATEST, SC_VERSION_MASK, true, sc_try_verify, version, fault);
}

/* --- the status block [4] ----------------------------------------------------------------------------------------- */

struct sc_body {
    unsigned char *bytes;
    size_t length;
};

static int
sc_try_status(shmconf_segment *segment, uint64_t number, void *context, shmconf_fault *fault)
{
    struct sc_body *body = context;
    uint64_t copy = SC_STATUS_BASE + number % SC_STATUS_COPIES * SC_PAGE;
    uint64_t stable = 2 * number;
    if (sc_acquire(segment, copy) != stable) {
        return SC_RETRY;
    }
    uint64_t head = sc_relaxed(segment, copy + SC_STATUS_HEAD);
    uint64_t length = head & UINT32_MAX;
    if (length > SHMCONF_STATUS_SIZE) {
        return sc_blame(segment, copy, stable, fault, "status block", number);
    }
    struct sc_view view = sc_section(segment, copy + SC_STATUS_BODY, length);
    sc_view_copy(&view, 0, body->bytes, length);
    if (!sc_is_unchanged(segment, copy, stable)) {
        return SC_RETRY;
    }
    if (sc_crc(sc_crc_tables(segment), 0, body->bytes, length) != (uint32_t)(head >> 32)) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the status block's checksum does not fit", segment->path);
    }
    body->length = length;
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_segment_status(shmconf_segment *segment, unsigned char body[SHMCONF_STATUS_SIZE], size_t *length,
                       shmconf_fault *fault)
{
    struct sc_body read = {body, 0};
    int result = sc_insist(segment, SC_STATUS_LATEST, UINT64_MAX, true, sc_try_status, &read, fault);
    *length = read.length;
    if (result == SHMCONF_OK && read.length == 0) {
        return sc_fail(fault, SHMCONF_CORRUPT, 0, "%s: the status block is empty", segment->path);
    }
    return result == SHMCONF_NOT_FOUND ? SHMCONF_OK : result;
}

/* --- msgpack scalars ---------------------------------------------------------------------------------------------- */

/* The scalar that `value` is, and nothing behind it. */
static bool
sc_scalar(const void *value, size_t length, struct sc_item *item)
{
    struct sc_view view = sc_private(value, length);
    return sc_item_at(&view, 0, item) && item->end == length;
}

SHMCONF_API int
shmconf_as_int(const void *value, size_t length, int64_t *result)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item) ||
        !(item.kind == SC_NEGATIVE || (item.kind == SC_POSITIVE && item.number <= INT64_MAX))) {
        return SHMCONF_WRONG_TYPE;
    }
    *result = (int64_t)item.number;
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_as_uint(const void *value, size_t length, uint64_t *result)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item) || item.kind != SC_POSITIVE) {
        return SHMCONF_WRONG_TYPE;
    }
    *result = item.number;
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_as_double(const void *value, size_t length, double *result)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item)) {
        return SHMCONF_WRONG_TYPE;
    }
    if (item.kind == SC_REAL) {
        *result = item.real;
        return SHMCONF_OK;
    }
    if (item.kind != SC_POSITIVE && item.kind != SC_NEGATIVE) {
        return SHMCONF_WRONG_TYPE;
    }
    bool negative;
    uint64_t back;
    double real = item.kind == SC_NEGATIVE ? (double)(int64_t)item.number : (double)item.number;
    if (!sc_is_integer(real, &negative, &back) || back != item.number) {
        return SHMCONF_WRONG_TYPE;
    }
    *result = real;
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_as_bool(const void *value, size_t length, bool *result)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item) || item.kind != SC_BOOL) {
        return SHMCONF_WRONG_TYPE;
    }
    *result = item.number != 0;
    return SHMCONF_OK;
}

SHMCONF_API int
shmconf_as_string(const void *value, size_t length, const char **text, size_t *text_length)
{
    struct sc_item item;
    if (!sc_scalar(value, length, &item) || item.kind != SC_STRING) {
        return SHMCONF_WRONG_TYPE;
    }
    *text = (const char *)value + item.body;
    *text_length = item.length;
    return SHMCONF_OK;
}

/* --- readers ------------------------------------------------------------------------------------------------------ */

struct shmconf_reader {
    shmconf_segment *segment;
    struct shmconf_cell *cells;
    uint64_t moves; /* to replacements */
    shmconf_fault fault;
    char *directory;
    bool named;
    char name[65];
    uint64_t look_ups, past_retries;
    int64_t may_reopen_at, may_check_at; /* ns, monotonic */
};

static void *
sc_allocate(void *context, int section, size_t length)
{
    void **block = (void **)context + (section == SHMCONF_PAYLOAD ? 0 : section == SHMCONF_INDEX ? 1 : 2);
    void *grown = realloc(*block, length == 0 ? 1 : length);
    if (grown != NULL) {
        *block = grown;
    }
    return grown;
}

/* A verified copy of the latest version, or why there is none. */
static int
sc_snapshot(shmconf_segment *segment, shmconf_snapshot *snapshot, shmconf_fault *fault)
{
    void **blocks = calloc(3, sizeof *blocks);
    memset(snapshot, 0, sizeof *snapshot);
    if (blocks == NULL) {
        return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory for a snapshot");
    }
    int result = shmconf_segment_copy(segment, SHMCONF_ALL, sc_allocate, blocks, snapshot, fault);
    snapshot->memory = blocks;
    if (result != SHMCONF_OK) {
        shmconf_snapshot_free(snapshot);
    }
    return result;
}

SHMCONF_API void
shmconf_snapshot_free(shmconf_snapshot *snapshot)
{
    void **blocks = snapshot->memory;
    for (int section = 0; blocks != NULL && section < 3; section++) {
        free(blocks[section]);
    }
    free(blocks);
    memset(snapshot, 0, sizeof *snapshot);
}

SHMCONF_API int
shmconf_snapshot_get(const shmconf_snapshot *snapshot, const char *path, const unsigned char **value, size_t *length)
{
    struct sc_path parsed;
    size_t offset;
    int result = sc_path_of(&parsed, path, NULL);
    if (result != SHMCONF_OK) {
        return result;
    }
    result = shmconf_find(snapshot->payload, snapshot->payload_length, snapshot->index, snapshot->index_length,
                          parsed.parts, parsed.count, &offset, length);
    sc_path_free(&parsed);
    if (result == SHMCONF_OK) {
        *value = snapshot->payload + offset;
    }
    return result;
}

/* What the agent last said of why it serves what it serves; empty where it said nothing. */
static void
sc_copy_text(const struct sc_content *body, const char *name, char *to, size_t capacity)
{
    shmconf_part key = {.kind = SHMCONF_STRING, .bytes = name, .length = strlen(name)};
    struct sc_item item;
    uint64_t offset, length;
    to[0] = '\0';
    if (sc_find(body, &key, 1, &offset, &length) == SHMCONF_OK && sc_item_at(&body->payload, offset, &item) &&
        item.kind == SC_STRING && item.length < capacity) {
        sc_view_copy(&body->payload, item.body, (unsigned char *)to, item.length);
        to[item.length] = '\0';
    }
}

static uint64_t
sc_number_of(const struct sc_content *body, const char *name)
{
    shmconf_part key = {.kind = SHMCONF_STRING, .bytes = name, .length = strlen(name)};
    struct sc_item item;
    uint64_t offset, length;
    bool found = sc_find(body, &key, 1, &offset, &length) == SHMCONF_OK && sc_item_at(&body->payload, offset, &item);
    return found && (item.kind == SC_POSITIVE || item.kind == SC_BOOL) ? item.number : 0;
}

static void
sc_agent_status(shmconf_segment *segment, shmconf_status *status)
{
    unsigned char bytes[SHMCONF_STATUS_SIZE];
    size_t length;
    status->last_error[0] = status->held[0] = '\0';
    strcpy(status->state, "unknown");
    if (shmconf_segment_status(segment, bytes, &length, NULL) == SHMCONF_OK && length > 0) {
        struct sc_content body = {sc_private(bytes, length), sc_private(NULL, 0)};
        sc_copy_text(&body, "state", status->state, sizeof status->state);
        if (status->state[0] == '\0') {
            strcpy(status->state, "unknown");
        }
        sc_copy_text(&body, "last_error", status->last_error, sizeof status->last_error);
        sc_copy_text(&body, "held", status->held, sizeof status->held);
        status->rejections = sc_number_of(&body, "rejections");
        status->problem_count = sc_number_of(&body, "problem_count");
        status->serving_last_known_good = status->last_error[0] != '\0' || sc_number_of(&body, "stale") != 0;
    }
    status->heartbeat_age = shmconf_segment_heartbeat_age(segment);
    status->agent_alive = status->heartbeat_age >= 0 && status->heartbeat_age <= SC_ALIVE &&
                          strcmp(status->state, "stopped") != 0;
}

/* A segment that may be served: trusted, whole, with a published version. */
static int
sc_open_published(shmconf_segment **segment, const char *directory, bool named, const char *name, shmconf_fault *fault)
{
    uint64_t version;
    int result = shmconf_segment_open(segment, directory, named, name, fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    result = shmconf_segment_verify(*segment, &version, fault);
    if (result == SHMCONF_OK) {
        return SHMCONF_OK;
    }
    if (result == SHMCONF_NOT_FOUND) {
        shmconf_status status;
        sc_agent_status(*segment, &status);
        sc_fail(fault, SHMCONF_NOT_FOUND, 0, "segment '%s' has nothing published yet: %.400s", name,
                status.last_error[0] != '\0' ? status.last_error : "its agent has not published a first version");
    }
    shmconf_segment_close(*segment);
    *segment = NULL;
    return result;
}

/* The directory that was named: the argument, else $SHMCONF_DIR, else NULL. */
static const char *
sc_named_directory(const char *directory)
{
    const char *chosen = directory != NULL ? directory : getenv("SHMCONF_DIR");
    return chosen != NULL && *chosen != '\0' ? chosen : NULL;
}

/* The named directory as it is called from anywhere: the process may change its own. False where there is no room. */
static bool
sc_absolute(const char *chosen, char *place, size_t room)
{
    size_t used = 0;
    if (chosen[0] != '/') {
        if (getcwd(place, room) == NULL) {
            return false;
        }
        used = strlen(place);
        used += (size_t)snprintf(place + used, room - used, "/");
    }
    return used < room && (size_t)snprintf(place + used, room - used, "%s", chosen) < room - used;
}

/* The i-th place to look for a segment: false behind the last. */
static bool
sc_place(int i, const char *chosen, char *place, size_t room, bool *named)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    unsigned long user = (unsigned long)getuid();
    *named = chosen != NULL || i == 0;
    if (chosen != NULL) {
        return i == 0 && sc_absolute(chosen, place, room);
    }
    switch (i) {
    case 0:
        snprintf(place, room, "/run/shmconf");
        return true;
    case 1:
        if (runtime == NULL || *runtime == '\0') {
            snprintf(place, room, "/run/user/%lu/shmconf", user);
        }
        else if ((size_t)snprintf(place, room, "%s/shmconf", runtime) >= room) {
            place[0] = '\0'; /* there is no such directory */
        }
        return true;
    case 2:
        snprintf(place, room, "/dev/shm/shmconf-%lu", user);
        return true;
    default:
        return false;
    }
}

/* The first place that holds the segment, open in the reader. */
static int
sc_open_somewhere(shmconf_reader *reader, const char *name, const char *directory, shmconf_fault *fault)
{
    char place[PATH_MAX];
    const char *chosen = sc_named_directory(directory);
    for (int i = 0; sc_place(i, chosen, place, sizeof place, &reader->named); i++) {
        int result = sc_open_published(&reader->segment, place, reader->named, name, fault);
        /* Nothing there by the system's word: another place may have it. Else it was found, whatever is wrong. */
        if (result == SHMCONF_NOT_FOUND && fault->system_error != 0) {
            continue;
        }
        if (result == SHMCONF_OK && (reader->directory = strdup(place)) == NULL) {
            return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory to open segment '%s'", name);
        }
        return result;
    }
    return sc_fail(fault, SHMCONF_NOT_FOUND, ENOENT, "no segment '%s' in %s; is its agent running?", name,
                   chosen != NULL ? chosen : "any of the default directories");
}

SHMCONF_API int
shmconf_open(shmconf_reader **opened, const char *name, const char *directory, shmconf_fault *fault)
{
    *opened = NULL;
    shmconf_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return sc_fail(fault, SHMCONF_SYSTEM, ENOMEM, "no memory to open segment '%s'", name);
    }
    int result = sc_open_somewhere(reader, name, directory, &reader->fault);
    if (result != SHMCONF_OK) {
        if (fault != NULL) {
            *fault = reader->fault;
        }
        shmconf_close(reader);
        return result;
    }
    snprintf(reader->name, sizeof reader->name, "%s", name);
    reader->may_check_at = sc_now() + SC_SECOND;
    *opened = reader;
    return SHMCONF_OK;
}

SHMCONF_API void
shmconf_close(shmconf_reader *reader)
{
    static const uint64_t nothing = SHMCONF_RETIRED; /* what the cells of a closed reader look at */
    if (reader != NULL) {
        while (reader->cells != NULL) {
            struct shmconf_cell *cell = reader->cells;
            cell->latest = &nothing;
            cell->word = 0;
            cell->reader = NULL;
            shmconf_cell_release(cell);
        }
        shmconf_segment_close(reader->segment);
        free(reader->directory);
        free(reader);
    }
}

SHMCONF_API const shmconf_fault *
shmconf_last_fault(const shmconf_reader *reader)
{
    return &reader->fault;
}

static uint64_t
sc_latest(const shmconf_reader *reader)
{
    return sc_acquire(reader->segment, SC_LATEST);
}

SHMCONF_API uint64_t
shmconf_version(const shmconf_reader *reader)
{
    return sc_latest(reader) & SC_VERSION_MASK;
}

SHMCONF_API uint64_t
shmconf_epoch(const shmconf_reader *reader)
{
    return reader->segment->epoch;
}

/* Every cell of the reader looks at this word from now on, and finds that its value is not of it. */
static void
sc_attach_cells(shmconf_reader *reader, const uint64_t *latest)
{
    for (struct shmconf_cell *cell = reader->cells; cell != NULL; cell = cell->next) {
        cell->latest = latest;
        cell->word = 0;
        cell->result = SHMCONF_CORRUPT; /* what it says where `latest` is 0 */
    }
}

/* Moves to a valid successor with a published version; false where there is none, and all stays as it is. */
static bool
sc_reopen(shmconf_reader *reader, bool at_once)
{
    shmconf_segment *successor;
    int64_t now = sc_now();
    if (!at_once && now < reader->may_reopen_at) {
        return false;
    }
    reader->may_reopen_at = now + SC_REOPEN_PAUSE;
    if (shmconf_segment_is_linked(reader->segment) ||
        sc_open_published(&successor, reader->directory, reader->named, reader->name, NULL) != SHMCONF_OK) {
        return false;
    }
    reader->past_retries += shmconf_segment_retries(reader->segment);
    shmconf_segment_close(reader->segment);
    reader->segment = successor;
    reader->moves++;
    sc_attach_cells(reader, shmconf_segment_latest(successor));
    return true;
}

/* A segment that had a published version and has none is damaged: no writer takes one back. */
static int
sc_lost(shmconf_reader *reader, int result)
{
    return result == SHMCONF_NOT_FOUND
               ? sc_fail(&reader->fault, SHMCONF_CORRUPT, 0, "%s: the published version is gone", reader->segment->path)
               : result;
}

static void
sc_follow_name(shmconf_reader *reader)
{
    if ((sc_latest(reader) & SHMCONF_RETIRED) != 0 || !shmconf_segment_is_linked(reader->segment)) {
        sc_reopen(reader, true);
    }
}

SHMCONF_API void
shmconf_follow(shmconf_reader *reader)
{
    sc_follow_name(reader);
}

/* A look-up that follows the segment's name where it must. */
static int
sc_reader_get(shmconf_reader *reader, const char *path, void *buffer, size_t capacity, size_t *length,
              uint64_t *version)
{
    struct sc_path parsed;
    *length = 0;
    int result = sc_path_of(&parsed, path, &reader->fault);
    if (result != SHMCONF_OK) {
        return result;
    }
    if (++reader->look_ups % SC_LOOK_UPS_PER_CHECK == 0) {
        sc_follow_name(reader);
    }
    else if ((sc_latest(reader) & SHMCONF_RETIRED) != 0) {
        sc_reopen(reader, false);
    }
    do {
        result = sc_lost(reader, shmconf_segment_get(reader->segment, parsed.parts, parsed.count, buffer, capacity, length,
                                                     version, &reader->fault));
    } while (result == SHMCONF_CORRUPT && sc_reopen(reader, true));
    if (result == SHMCONF_MISSING) {
        sc_fail(&reader->fault, SHMCONF_MISSING, 0, "the configuration has nothing at %s", path);
    }
    sc_path_free(&parsed);
    return result;
}

SHMCONF_API int
shmconf_get(shmconf_reader *reader, const char *path, void *buffer, size_t capacity, size_t *length)
{
    return sc_reader_get(reader, path, buffer, capacity, length, NULL);
}

static int
sc_wrong_type(shmconf_reader *reader, const char *path, const char *wanted)
{
    return sc_fail(&reader->fault, SHMCONF_WRONG_TYPE, 0, "the value at %s is not %s", path, wanted);
}

/* A value that is a number, a boolean or nothing of the kind: no longer one than 9 bytes is. */
static int
sc_get_small(shmconf_reader *reader, const char *path, unsigned char value[9], size_t *length, uint64_t *version,
             const char *wanted)
{
    int result = sc_reader_get(reader, path, value, 9, length, version);
    return result == SHMCONF_NO_SPACE ? sc_wrong_type(reader, path, wanted) : result;
}

#define SC_INT_WORDS "an integer of 64 bits with a sign"
#define SC_UINT_WORDS "an integer of 64 bits without a sign"
#define SC_DOUBLE_WORDS "a number that a double holds"
#define SC_BOOL_WORDS "a boolean"

#define SC_GET_SMALL(take, wanted)                                                                                     \
    unsigned char bytes[9];                                                                                            \
    size_t length;                                                                                                     \
    int result = sc_get_small(reader, path, bytes, &length, NULL, wanted);                                             \
    if (result == SHMCONF_OK && (result = take(bytes, length, value)) != SHMCONF_OK) {                                 \
        sc_wrong_type(reader, path, wanted);                                                                           \
    }                                                                                                                  \
    return result

SHMCONF_API int
shmconf_get_int(shmconf_reader *reader, const char *path, int64_t *value)
{
    SC_GET_SMALL(shmconf_as_int, SC_INT_WORDS);
}

SHMCONF_API int
shmconf_get_uint(shmconf_reader *reader, const char *path, uint64_t *value)
{
    SC_GET_SMALL(shmconf_as_uint, SC_UINT_WORDS);
}

SHMCONF_API int
shmconf_get_double(shmconf_reader *reader, const char *path, double *value)
{
    SC_GET_SMALL(shmconf_as_double, SC_DOUBLE_WORDS);
}

SHMCONF_API int
shmconf_get_bool(shmconf_reader *reader, const char *path, bool *value)
{
    SC_GET_SMALL(shmconf_as_bool, SC_BOOL_WORDS);
}

SHMCONF_API int
shmconf_get_string(shmconf_reader *reader, const char *path, char *buffer, size_t capacity, size_t *length)
{
    unsigned char few[512];
    unsigned char *value = few;
    size_t room = sizeof few, bytes, text_length = 0;
    const char *text;
    int result;
    while ((result = sc_reader_get(reader, path, value, room, &bytes, NULL)) == SHMCONF_NO_SPACE) {
        if (value != few) { /* a longer one was published meanwhile */
            free(value);
        }
        room = bytes;
        if ((value = malloc(room)) == NULL) {
            return sc_fail(&reader->fault, SHMCONF_SYSTEM, ENOMEM, "no memory for the value at %s", path);
        }
    }
    if (result == SHMCONF_OK && (result = shmconf_as_string(value, bytes, &text, &text_length)) != SHMCONF_OK) {
        sc_wrong_type(reader, path, "a string");
    }
    if (result == SHMCONF_OK && text_length >= capacity) {
        result = sc_fail(&reader->fault, SHMCONF_NO_SPACE, 0, "the text has %zu bytes, the buffer %zu", text_length,
                         capacity);
    }
    if (result == SHMCONF_OK) {
        memcpy(buffer, text, text_length);
        buffer[text_length] = '\0';
    }
    if (length != NULL) {
        *length = text_length;
    }
    if (value != few) {
        free(value);
    }
    return result;
}

SHMCONF_API int
shmconf_snapshot_take(shmconf_reader *reader, shmconf_snapshot *snapshot)
{
    int result;
    int64_t now = sc_now();
    if (now >= reader->may_check_at) {
        reader->may_check_at = now + SC_SECOND;
        sc_follow_name(reader);
    }
    else if ((sc_latest(reader) & SHMCONF_RETIRED) != 0) {
        sc_reopen(reader, false);
    }
    do {
        result = sc_lost(reader, sc_snapshot(reader->segment, snapshot, &reader->fault));
    } while (result == SHMCONF_CORRUPT && sc_reopen(reader, true));
    return result;
}

SHMCONF_API int
shmconf_wait(shmconf_reader *reader, uint64_t after, double timeout, uint64_t *version)
{
    uint64_t began_in = shmconf_epoch(reader);
    int64_t deadline = timeout < 0 ? INT64_MAX : sc_now() + (int64_t)((timeout < 1e9 ? timeout : 1e9) * 1e9);
    for (;;) {
        uint32_t seen = shmconf_segment_wake_word(reader->segment); /* before the version, or a bump is slept through */
        uint64_t slept_in = reader->moves;
        uint64_t word = sc_latest(reader);
        if ((word & SHMCONF_RETIRED) != 0 && sc_reopen(reader, false)) {
            word = sc_latest(reader);
        }
        uint64_t current = word & SC_VERSION_MASK;
        bool moved = reader->moves > 0; /* then `after` may be a number of the segment before */
        bool is_other_epoch = shmconf_epoch(reader) != began_in;
        if (moved ? current >= 1 && (current != after || is_other_epoch) : current > after) {
            if (version != NULL) {
                *version = current;
            }
            return SHMCONF_OK;
        }
        int64_t left = deadline == INT64_MAX ? SC_SECOND : deadline - sc_now();
        if (left <= 0) {
            return sc_fail(&reader->fault, SHMCONF_TIMEOUT, 0, "no version after %llu in time",
                           (unsigned long long)after);
        }
        if (reader->moves != slept_in) {
            continue; /* the wake word belongs to a segment that was left */
        }
        int64_t slice = (word & SHMCONF_RETIRED) != 0 ? SC_REOPEN_PAUSE : SC_SECOND;
        int slept = shmconf_segment_sleep(reader->segment, seen, (double)(left < slice ? left : slice) / 1e9);
        if (slept != SHMCONF_OK) {
            return sc_fail(&reader->fault, slept, errno, "the wait ended: %s", strerror(errno));
        }
        sc_follow_name(reader);
    }
}

SHMCONF_API int
shmconf_status_take(shmconf_reader *reader, shmconf_status *status)
{
    memset(status, 0, sizeof *status);
    sc_follow_name(reader);
    uint64_t word = sc_latest(reader);
    status->version = word & SC_VERSION_MASK;
    status->retired = (word & SHMCONF_RETIRED) != 0;
    status->epoch = shmconf_epoch(reader);
    status->retries = reader->past_retries + shmconf_segment_retries(reader->segment);
    status->reopened = reader->moves;
    sc_agent_status(reader->segment, status);
    status->serving_last_known_good &= status->version > 0; /* what damage leaves: else a reader has a version */
    return SHMCONF_OK;
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

enum sc_cell_kind { SC_INT_CELL, SC_DOUBLE_CELL, SC_BOOL_CELL };

static void
sc_cell_init(struct shmconf_cell *cell, int kind, shmconf_reader *reader, const char *path)
{
    *cell = (struct shmconf_cell){
        .latest = shmconf_segment_latest(reader->segment),
        .result = SHMCONF_CORRUPT, /* what it says where `latest` is 0 */
        .kind = kind,
        .reader = reader,
        .path = path,
        .next = reader->cells,
        .link = &reader->cells,
    };
    if (cell->next != NULL) {
        cell->next->link = &cell->next;
    }
    reader->cells = cell;
}

SHMCONF_API void
shmconf_int_cell_init(shmconf_int_cell *cell, shmconf_reader *reader, const char *path)
{
    cell->value = 0;
    sc_cell_init(&cell->cell, SC_INT_CELL, reader, path);
}

SHMCONF_API void
shmconf_double_cell_init(shmconf_double_cell *cell, shmconf_reader *reader, const char *path)
{
    cell->value = 0;
    sc_cell_init(&cell->cell, SC_DOUBLE_CELL, reader, path);
}

SHMCONF_API void
shmconf_bool_cell_init(shmconf_bool_cell *cell, shmconf_reader *reader, const char *path)
{
    cell->value = false;
    sc_cell_init(&cell->cell, SC_BOOL_CELL, reader, path);
}

SHMCONF_API void
shmconf_cell_release(struct shmconf_cell *cell)
{
    if (cell->link != NULL) {
        *cell->link = cell->next;
        if (cell->next != NULL) {
            cell->next->link = cell->link;
        }
    }
    cell->next = NULL;
    cell->link = NULL;
}

/* Takes `result` as what the value read into a cell's type is. */
static int
sc_fill_cell(struct shmconf_cell *cell, int result, const unsigned char *bytes, size_t length)
{
    shmconf_int_cell *integer = (shmconf_int_cell *)cell; /* `cell` is the first member of each */
    shmconf_double_cell *number = (shmconf_double_cell *)cell;
    shmconf_bool_cell *truth = (shmconf_bool_cell *)cell;
    bool is_there = result == SHMCONF_OK;
    switch (cell->kind) {
    case SC_INT_CELL:
        integer->value = 0;
        return is_there ? shmconf_as_int(bytes, length, &integer->value) : result;
    case SC_DOUBLE_CELL:
        number->value = 0;
        return is_there ? shmconf_as_double(bytes, length, &number->value) : result;
    default:
        truth->value = false;
        return is_there ? shmconf_as_bool(bytes, length, &truth->value) : result;
    }
}

SHMCONF_API void
shmconf_cell_refresh(struct shmconf_cell *cell)
{
    static const char *const wanted[] = {
        [SC_INT_CELL] = SC_INT_WORDS,
        [SC_DOUBLE_CELL] = SC_DOUBLE_WORDS,
        [SC_BOOL_CELL] = SC_BOOL_WORDS,
    };
    shmconf_reader *reader = cell->reader;
    unsigned char bytes[9];
    size_t length = 0;
    uint64_t version = 0;
    cell->word = 0;
    if (reader == NULL) {
        cell->result = sc_fill_cell(cell, SHMCONF_NOT_FOUND, bytes, length);
        return;
    }
    int result = sc_get_small(reader, cell->path, bytes, &length, &version, wanted[cell->kind]);
    cell->result = sc_fill_cell(cell, result, bytes, length);
    if (result == SHMCONF_OK && cell->result == SHMCONF_WRONG_TYPE) {
        sc_wrong_type(reader, cell->path, wanted[cell->kind]);
    }
    if (cell->result == SHMCONF_OK || cell->result == SHMCONF_MISSING || cell->result == SHMCONF_WRONG_TYPE) {
        cell->word = version;
    }
}

#endif /* SHMCONF_IMPLEMENTATION */
