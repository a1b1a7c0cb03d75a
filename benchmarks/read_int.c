/* read_int DIRECTORY PATH VALUE FILE OFFSET
 *
 * Prints seconds per turn of three loops: shmconf_int_cell_get of PATH in segment `web`, an acquire load of the word
 * that it looks at (`latest`, at OFFSET of FILE, through a mapping of our own), and neither. See c_read.py.
 *
 * The loops are equal but for the read. Each turn ends with CONSUME, which takes the value in a register and might, for
 * all that the compiler knows, have changed any memory: so nothing is hoisted, merged or dropped, and what a read needs
 * is loaded again at each turn. The loop's own time is in both figures: on a wide core it overlaps with the read, so
 * subtracting it would leave nothing of the load. Rounds are interleaved and the smallest counts. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#define TURNS 2000000
#define ROUNDS 50
#define CONSUME(value) __asm__ volatile("" : : "r"(value) : "memory")

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void fail(const char *what, long code)
{
    fprintf(stderr, "read_int: %s: %ld\n", what, code);
    exit(1);
}

__attribute__((noinline)) static double time_cell(shmconf_int_cell *cell, int64_t expected)
{
    int64_t value = 0;
    int failed = 0;
    double began = now();
    for (long turn = 0; turn < TURNS; turn++) {
        failed |= shmconf_int_cell_get(cell, &value);
        CONSUME(value);
    }
    double taken = now() - began;
    if (failed || value != expected)
        fail("the cell gave an error or a wrong value", (long)value);
    return taken / TURNS;
}

__attribute__((noinline)) static double time_load(const _Atomic uint64_t *word)
{
    uint64_t value = 0;
    double began = now();
    for (long turn = 0; turn < TURNS; turn++) {
        value = atomic_load_explicit(word, memory_order_acquire);
        CONSUME(value);
    }
    double taken = now() - began;
    if (value == 0)
        fail("the word is not that of a published version", 0);
    return taken / TURNS;
}

__attribute__((noinline)) static double time_empty(void)
{
    double began = now();
    for (long turn = 0; turn < TURNS; turn++)
        CONSUME(turn);
    return (now() - began) / TURNS;
}

static void keep_smallest(double *smallest, double seconds)
{
    if (*smallest == 0 || seconds < *smallest)
        *smallest = seconds;
}

int main(int count, char **arguments)
{
    if (count != 6)
        fail("usage: read_int DIRECTORY PATH VALUE FILE OFFSET", count);
    int64_t expected = strtoll(arguments[3], NULL, 10);
    int fd = open(arguments[4], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail("cannot open the segment file", fd);
    const char *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        fail("cannot map the segment file", fd);
    const _Atomic uint64_t *word = (const void *)(mapped + strtol(arguments[5], NULL, 10));

    shmconf_reader *reader;
    int code = shmconf_open(&reader, "web", arguments[1], NULL);
    if (code != SHMCONF_OK)
        fail("shmconf_open", code);
    shmconf_int_cell cell;
    shmconf_int_cell_init(&cell, reader, arguments[2]);

    double cell_seconds = 0, load_seconds = 0, empty_seconds = 0;
    for (int round = 0; round < ROUNDS; round++) {
        keep_smallest(&cell_seconds, time_cell(&cell, expected));
        keep_smallest(&load_seconds, time_load(word));
        keep_smallest(&empty_seconds, time_empty());
    }
    printf("%.6e %.6e %.6e\n", cell_seconds, load_seconds, empty_seconds);
    shmconf_close(reader);
    return 0;
}
