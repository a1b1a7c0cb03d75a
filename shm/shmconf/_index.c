/* Builds the index of a payload (FORMAT.md, section 3) in one pass; index.py has the same in Python, byte for byte.
 *
 * The walk keeps the offsets of the items of every open map and list on one stack. Where a container ends, its own
 * offsets lie on top: they become a table if its encoding is longer than 256 bytes, and are dropped otherwise. So a
 * key is hashed only when it goes into a table, and once. Entries are placed by counting, never by comparing, so keys
 * made to collide cost what others do.
 *
 * The contract with the caller: the payload may be hostile. Nothing is read outside it, and nesting is kept on a stack
 * of our own, whose growth the payload's length bounds.
 */
#include "_index.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(size_t) == 8, "a payload and what is kept of it may be larger than 4 GiB together");

#define WORD 8
#define KIND 1
#define LONGEST_WITHOUT 256 /* bytes of a container, or of the payload, up to which there is no table, or no index */
#define LARGEST_STRIDE 32
#define TABLE_HEAD 16

/* --- CRC-32 ------------------------------------------------------------------------------------------------------- */

static uint32_t crc_tables[8][256]; /* [k][b]: byte b with k zeros behind it */
static pthread_once_t crc_tables_made = PTHREAD_ONCE_INIT;

static void
make_crc_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        }
        crc_tables[0][byte] = crc;
    }
    for (int zeros = 1; zeros < 8; zeros++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_tables[zeros - 1][byte];
            crc_tables[zeros][byte] = crc >> 8 ^ crc_tables[0][crc & 0xFF];
        }
    }
}

static uint32_t
little32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t
crc32_of(const unsigned char *data, size_t length)
{
    uint32_t crc = UINT32_MAX;
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = little32(data) ^ crc;
        uint32_t high = little32(data + 4);
        crc = crc_tables[7][low & 0xFF] ^ crc_tables[6][low >> 8 & 0xFF] ^ crc_tables[5][low >> 16 & 0xFF] ^
              crc_tables[4][low >> 24] ^ crc_tables[3][high & 0xFF] ^ crc_tables[2][high >> 8 & 0xFF] ^
              crc_tables[1][high >> 16 & 0xFF] ^ crc_tables[0][high >> 24];
    }
    for (; length > 0; data++, length--) {
        crc = crc >> 8 ^ crc_tables[0][(crc ^ *data) & 0xFF];
    }
    return ~crc;
}

/* --- msgpack ------------------------------------------------------------------------------------------------------ */

static uint64_t
big_endian(const unsigned char *at, size_t width)
{
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++) {
        number = number << 8 | at[i];
    }
    return number;
}

typedef enum { SCALAR, LIST, MAP } Kind;

typedef struct {
    Kind kind;
    uint64_t size;  /* bytes of a whole scalar, or of a container's head */
    uint64_t count; /* elements, or pairs */
} Item;

/* What begins at `at`, which is below `length`; false where its head is not whole or no msgpack. A scalar's body may
 * still be cut short. */
static inline bool
take_item(const unsigned char *payload, uint64_t length, uint64_t at, Item *item)
{
    unsigned char lead = payload[at];
    *item = (Item){SCALAR, 1, 0};
    if (lead < 0x80 || lead >= 0xE0) {
        return true;
    }
    if (lead >= 0xA0 && lead < 0xC0) {
        item->size = 1 + (uint64_t)(lead & 0x1F);
        return true;
    }
    if (lead < 0xA0) {
        item->kind = lead < 0x90 ? MAP : LIST;
        item->count = lead & 0x0F;
        return true;
    }
    size_t width = 0;      /* of the length or count behind the lead byte */
    uint64_t of_fixed = 0; /* bytes behind that, beside what it counts */
    switch (lead) {
    case 0xC0: case 0xC2: case 0xC3: return true;
    case 0xC4: case 0xD9: width = 1; break;
    case 0xC5: case 0xDA: width = 2; break;
    case 0xC6: case 0xDB: width = 4; break;
    case 0xC7: width = 1; of_fixed = 1; break;
    case 0xC8: width = 2; of_fixed = 1; break;
    case 0xC9: width = 4; of_fixed = 1; break;
    case 0xCC: case 0xD0: of_fixed = 1; break;
    case 0xCD: case 0xD1: of_fixed = 2; break;
    case 0xCA: case 0xCE: case 0xD2: of_fixed = 4; break;
    case 0xCB: case 0xCF: case 0xD3: of_fixed = 8; break;
    case 0xD4: of_fixed = 2; break;
    case 0xD5: of_fixed = 3; break;
    case 0xD6: of_fixed = 5; break;
    case 0xD7: of_fixed = 9; break;
    case 0xD8: of_fixed = 17; break;
    case 0xDC: item->kind = LIST; width = 2; break;
    case 0xDD: item->kind = LIST; width = 4; break;
    case 0xDE: item->kind = MAP; width = 2; break;
    case 0xDF: item->kind = MAP; width = 4; break;
    default: return false; /* 0xC1 */
    }
    if (width > length - at - 1) {
        return false;
    }
    uint64_t number = big_endian(payload + at + 1, width);
    if (item->kind == SCALAR) {
        item->size = 1 + width + of_fixed + number;
    }
    else {
        item->size = 1 + width;
        item->count = number;
    }
    return true;
}

static uint32_t
hash_number(uint64_t number)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(number >> 8 * i);
    }
    return crc32_of(bytes, sizeof bytes);
}

static uint32_t
hash_float(double value)
{
    /* Both ranges leave out NaN; a conversion that gives another number back had a fraction to drop. */
    if (value >= 0 && value < 18446744073709551616.0 && (double)(uint64_t)value == value) {
        return hash_number((uint64_t)value);
    }
    if (value < 0 && value >= -9223372036854775808.0 && (double)(int64_t)value == value) {
        return hash_number((uint64_t)(int64_t)value);
    }
    if (value != value) {
        return 0; /* it equals no key, and the bytes of NaNs differ between machines */
    }
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return hash_number(bits);
}

static uint32_t
hash_extension(const unsigned char *type_and_data, size_t length)
{
    unsigned char type = type_and_data[0];
    return type >= 1 && type <= 3 ? crc32_of(type_and_data + 1, length) : 0;
}

/* The hash of a whole scalar. */
static uint32_t
hash_key(const unsigned char *key)
{
    unsigned char lead = key[0];
    if (lead < 0x80) {
        return hash_number(lead);
    }
    if (lead >= 0xE0) {
        return hash_number((uint64_t)(int64_t)(int8_t)lead);
    }
    if (lead < 0xC0) {
        return crc32_of(key + 1, lead & 0x1F);
    }
    switch (lead) {
    case 0xC2: return hash_number(0);
    case 0xC3: return hash_number(1);
    case 0xC4: case 0xD9: return crc32_of(key + 2, key[1]);
    case 0xC5: case 0xDA: return crc32_of(key + 3, big_endian(key + 1, 2));
    case 0xC6: case 0xDB: return crc32_of(key + 5, big_endian(key + 1, 4));
    case 0xC7: return hash_extension(key + 2, key[1]);
    case 0xC8: return hash_extension(key + 3, big_endian(key + 1, 2));
    case 0xC9: return hash_extension(key + 5, big_endian(key + 1, 4));
    case 0xCA: {
        uint32_t bits = (uint32_t)big_endian(key + 1, 4);
        float value;
        memcpy(&value, &bits, sizeof value);
        return hash_float(value);
    }
    case 0xCB: {
        uint64_t bits = big_endian(key + 1, 8);
        double value;
        memcpy(&value, &bits, sizeof value);
        return hash_float(value);
    }
    case 0xCC: case 0xCD: case 0xCE: case 0xCF: return hash_number(big_endian(key + 1, (size_t)1 << (lead - 0xCC)));
    case 0xD0: case 0xD1: case 0xD2: case 0xD3: {
        unsigned unused = 64 - (8u << (lead - 0xD0)); /* bits in front of the number: filled with its sign */
        uint64_t number = big_endian(key + 1, (size_t)1 << (lead - 0xD0));
        uint64_t sign = number << unused >> 63;
        return hash_number(unused != 0 && sign ? number | UINT64_MAX << (64 - unused) : number);
    }
    case 0xD4: case 0xD5: case 0xD6: case 0xD7: case 0xD8:
        return hash_extension(key + 1, (size_t)1 << (lead - 0xD4));
    default: return 0; /* nil */
    }
}

/* --- stacks and the index under construction ---------------------------------------------------------------------- */

typedef struct {
    void *items;
    size_t count, room; /* items */
} Stack;

typedef struct {
    uint64_t left;  /* items that are still to come: keys and values of a map each count */
    uint64_t count; /* pairs of a map, elements of a list */
    size_t first;   /* where its items' offsets begin on the stack of offsets */
    uint32_t start; /* its own offset */
    Kind kind;
} Container;

typedef struct {
    const unsigned char *payload;
    uint64_t length;
    Stack open;       /* of Container: what encloses the present one */
    Stack offsets;    /* of uint32_t: the items of everything open */
    Stack containers; /* of uint32_t: for the directory, the offset of each container with a table, */
    Stack positions;  /* of uint32_t: and its table's position */
    Stack tags;       /* of uint32_t: of the map that just ended */
    Stack starts;     /* of uint32_t: of its buckets */
    Stack index;      /* of unsigned char */
} Builder;

/* Room for `more` items beyond the present ones; false where there is none. */
static bool
make_room(Stack *stack, size_t more, size_t size)
{
    if (more <= stack->room - stack->count) {
        return true;
    }
    if (more > SIZE_MAX / size / 4 || stack->room > SIZE_MAX / size / 4) {
        return false;
    }
    size_t room = stack->room + stack->room / 2 + more + 64;
    void *items = realloc(stack->items, room * size);
    if (items == NULL) {
        return false;
    }
    stack->items = items;
    stack->room = room;
    return true;
}

static inline bool
push_uint32(Stack *stack, uint32_t number)
{
    if (stack->count == stack->room && !make_room(stack, 1, sizeof number)) {
        return false;
    }
    ((uint32_t *)stack->items)[stack->count++] = number;
    return true;
}

static void
put32(unsigned char *at, uint32_t number)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (unsigned char)(number >> 8 * i);
    }
}

static uint64_t
whole_words(uint64_t bytes)
{
    return (bytes + WORD - 1) / WORD * WORD;
}

/* A new table's zeroed bytes at the end of the index, with its head; NULL where there is no room, for the memory's or
 * for the 32-bit positions' sake. */
static unsigned char *
begin_table(Builder *b, uint64_t bytes, uint32_t count, uint32_t parameter, uint64_t length)
{
    if (b->index.count / WORD > UINT32_MAX || !make_room(&b->index, bytes, 1)) {
        return NULL;
    }
    unsigned char *table = (unsigned char *)b->index.items + b->index.count;
    memset(table, 0, bytes);
    b->index.count += bytes;
    put32(table, count);
    put32(table + 4, parameter);
    put32(table + 8, (uint32_t)length);
    return table;
}

/* A hash table of `count` entries; values[0], values[step], ... belong to the tags in turn. */
static bool
add_hash_table(Builder *b, const uint32_t *tags, const uint32_t *values, size_t step, uint32_t count, uint64_t length)
{
    unsigned bits = 0;
    while (UINT64_C(4) << bits < count) {
        bits++;
    }
    size_t buckets = (size_t)1 << bits;
    b->starts.count = 0;
    if (!make_room(&b->starts, buckets + 1, sizeof(uint32_t))) {
        return false;
    }
    uint64_t starts_bytes = whole_words(4 * (uint64_t)(buckets + 1));
    unsigned char *table = begin_table(b, TABLE_HEAD + starts_bytes + WORD * (uint64_t)count, count, bits, length);
    if (table == NULL) {
        return false;
    }
    uint32_t *next = b->starts.items; /* where the bucket's next entry goes; first, how many it has */
    memset(next, 0, (buckets + 1) * sizeof *next);
#define BUCKET(tag) (bits == 0 ? 0 : (uint32_t)((tag) * UINT32_C(0x9E3779B1)) >> (32 - bits))
    for (uint32_t i = 0; i < count; i++) {
        next[BUCKET(tags[i])]++;
    }
    uint32_t before = 0;
    for (size_t bucket = 0; bucket <= buckets; bucket++) {
        uint32_t entries = next[bucket];
        next[bucket] = before;
        put32(table + TABLE_HEAD + 4 * bucket, before);
        before += entries;
    }
    /* In the order of the values, which rise: so they do in each bucket. */
    unsigned char *entries = table + TABLE_HEAD + starts_bytes;
    for (uint32_t i = 0; i < count; i++) {
        unsigned char *entry = entries + WORD * (size_t)next[BUCKET(tags[i])]++;
        put32(entry, values[i * step]);
        put32(entry + 4, tags[i]);
    }
#undef BUCKET
    return true;
}

static bool
add_list_table(Builder *b, const uint32_t *offsets, uint32_t count, uint64_t length)
{
    uint32_t stride = 1;
    while (stride < LARGEST_STRIDE && stride * length < UINT64_C(64) * count) {
        stride *= 2;
    }
    uint64_t kept = ((uint64_t)count + stride - 1) / stride;
    unsigned char *table = begin_table(b, TABLE_HEAD + whole_words(4 * kept), count, stride, length);
    for (uint64_t i = 0; table != NULL && i < kept; i++) {
        put32(table + TABLE_HEAD + 4 * i, offsets[i * stride]);
    }
    return table != NULL;
}

/* The table of a map or list that ended, more than 256 bytes behind its start; its items' offsets lie on top. */
static bool
add_table(Builder *b, const Container *ended, uint64_t length)
{
    const uint32_t *offsets = (const uint32_t *)b->offsets.items + ended->first;
    uint32_t count = (uint32_t)ended->count; /* each item has a byte of the payload, and that has fewer than 2^32 */
    if (!push_uint32(&b->containers, ended->start) || !push_uint32(&b->positions, (uint32_t)(b->index.count / WORD))) {
        return false;
    }
    if (ended->kind == LIST) {
        return add_list_table(b, offsets, count, length);
    }
    b->tags.count = 0;
    if (!make_room(&b->tags, count, sizeof(uint32_t))) {
        return false;
    }
    uint32_t *tags = b->tags.items;
    for (size_t i = 0; i < count; i++) {
        tags[i] = hash_key(b->payload + offsets[2 * i]);
    }
    return add_hash_table(b, tags, offsets, 2, count, length);
}

/* --- the walk ----------------------------------------------------------------------------------------------------- */

static int
walk(Builder *b)
{
    /* The document is the one element of a list that has no bytes of its own. */
    Container now = {.left = 1, .count = 1, .first = 0, .start = 0, .kind = LIST};
    uint64_t at = 0;
    for (;;) {
        Item item;
        if (at >= b->length || !take_item(b->payload, b->length, at, &item) || item.size > b->length - at) {
            return SHMCONF_INDEX_NOT_A_DOCUMENT;
        }
        if (!push_uint32(&b->offsets, (uint32_t)at)) {
            return SHMCONF_INDEX_NO_MEMORY;
        }
        if (item.kind != SCALAR) {
            if (now.kind == MAP && now.left % 2 == 0) {
                return SHMCONF_INDEX_NOT_A_DOCUMENT; /* a key that is no scalar */
            }
            if (item.count > b->length - at) {
                return SHMCONF_INDEX_NOT_A_DOCUMENT; /* more items than bytes */
            }
        }
        now.left--;
        if (item.count > 0) {
            if (b->open.count == b->open.room && !make_room(&b->open, 1, sizeof now)) {
                return SHMCONF_INDEX_NO_MEMORY;
            }
            ((Container *)b->open.items)[b->open.count++] = now;
            now = (Container){
                .left = item.kind == MAP ? 2 * item.count : item.count,
                .count = item.count,
                .first = b->offsets.count,
                .start = (uint32_t)at,
                .kind = item.kind,
            };
        }
        at += item.size;
        while (now.left == 0) {
            if (b->open.count == 0) {
                return at == b->length ? SHMCONF_INDEX_BUILT : SHMCONF_INDEX_NOT_A_DOCUMENT;
            }
            if (at - now.start > LONGEST_WITHOUT && !add_table(b, &now, at - now.start)) {
                return SHMCONF_INDEX_NO_MEMORY;
            }
            b->offsets.count = now.first;
            now = ((Container *)b->open.items)[--b->open.count];
        }
    }
}

static int
build(Builder *b)
{
    if (!make_room(&b->index, b->length / 8 + 256, 1)) {
        return SHMCONF_INDEX_NO_MEMORY;
    }
    memset(b->index.items, 0, WORD); /* kind and the directory's position, once that is known */
    b->index.count = WORD;
    int result = walk(b);
    if (result != SHMCONF_INDEX_BUILT) {
        return result;
    }
    size_t directory = b->index.count / WORD;
    if (directory > UINT32_MAX || !add_hash_table(b, b->containers.items, b->positions.items, 1,
                                                  (uint32_t)b->containers.count, b->length)) {
        return SHMCONF_INDEX_NO_MEMORY;
    }
    put32(b->index.items, KIND);
    put32((unsigned char *)b->index.items + 4, (uint32_t)directory);
    return SHMCONF_INDEX_BUILT;
}

int
shmconf_index_build(const unsigned char *payload, size_t length, unsigned char **index, size_t *index_length)
{
    *index = NULL;
    *index_length = 0;
    if (length <= LONGEST_WITHOUT || (uint64_t)length > UINT32_MAX) {
        return SHMCONF_INDEX_BUILT;
    }
    pthread_once(&crc_tables_made, make_crc_tables);
    Builder b = {.payload = payload, .length = length};
    int result = build(&b);
    if (result == SHMCONF_INDEX_BUILT) {
        *index = b.index.items;
        *index_length = b.index.count;
    }
    else {
        free(b.index.items);
    }
    Stack scratch[] = {b.open, b.offsets, b.containers, b.positions, b.tags, b.starts};
    for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++) {
        free(scratch[i].items);
    }
    return result;
}
