/* waiter DIRECTORY RESULTS NUMBER: what waiter.py does, by the reader in C, to tell what of a wake-up is Python's. */

#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WORDS_EACH 8 /* as in waiter.py: version, time */

int main(int count, char **arguments)
{
    shmconf_reader *config;
    shmconf_fault fault;
    if (count != 4 || shmconf_open(&config, "web", arguments[1], &fault) != SHMCONF_OK) {
        fprintf(stderr, "waiter: %s\n", count == 4 ? fault.text : "three arguments, please");
        return 1;
    }
    int fd = open(arguments[2], O_RDWR);
    uint64_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) {
        perror("waiter");
        return 1;
    }
    words += atoi(arguments[3]) * WORDS_EACH;
    uint64_t version = shmconf_version(config);
    __atomic_store_n(&words[0], version, __ATOMIC_RELEASE);
    while (shmconf_wait(config, version, -1, &version) == SHMCONF_OK) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        __atomic_store_n(&words[1], (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, __ATOMIC_RELAXED);
        __atomic_store_n(&words[0], version, __ATOMIC_RELEASE); /* after the time: read first by wakeup.py */
    }
    return 1;
}
