/* Builds the index of each payload on stdin (length in 4 bytes, then its bytes) in memory of exactly its size, so that
 * AddressSanitizer sees the first byte read beyond it. On stdout, for each: result and length in 4 bytes, the index. */
#include "_index.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int
main(void)
{
    uint32_t length;
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        unsigned char *payload = malloc(length > 0 ? length : 1);
        if (payload == NULL || fread(payload, 1, length, stdin) != length) {
            return 2;
        }
        unsigned char *index;
        size_t index_length;
        uint32_t told[2];
        told[0] = (uint32_t)shmconf_index_build(payload, length, &index, &index_length);
        told[1] = (uint32_t)index_length;
        if (fwrite(told, sizeof told, 1, stdout) != 1) {
            return 2;
        }
        if (index != NULL && fwrite(index, 1, index_length, stdout) != index_length) {
            return 2;
        }
        free(index);
        free(payload);
    }
    return 0;
}
