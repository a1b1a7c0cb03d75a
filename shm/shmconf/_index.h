/* The index of a payload: what it is stands in FORMAT.md, section 3. */
#ifndef SHMCONF_INDEX_H
#define SHMCONF_INDEX_H

#include <stddef.h>

enum {
    SHMCONF_INDEX_BUILT = 0,
    SHMCONF_INDEX_NOT_A_DOCUMENT = 1,
    SHMCONF_INDEX_NO_MEMORY = 2,
};

/* Builds the index of `length` bytes at `payload`, which nobody may change meanwhile. *index is the caller's, to be
 * freed; it is NULL and *index_length 0 where the payload has no index (256 bytes or fewer, 2^32 or more: then the
 * payload is not looked at) and where the result is not SHMCONF_INDEX_BUILT. Time and memory grow with the payload's
 * length whatever is in it. From any thread. */
int shmconf_index_build(const unsigned char *payload, size_t length, unsigned char **index, size_t *index_length);

#endif
