/* quiet DIRECTORY GETS ROUNDS: looks up by path and by cell in the segment `web`, after it has given up every system call
 * but read, write and exit: the kernel kills it at any other. Before each round it writes `?` and reads a byte. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void
leave(int code)
{
    syscall(SYS_exit, code); /* not exit_group, which libc's _exit is */
}

int
main(int count, char **arguments)
{
    shmconf_fault fault;
    shmconf_reader *reader;
    shmconf_int_cell cell;
    uint64_t number;
    int64_t in_cell;
    if (count != 4 || shmconf_open(&reader, "web", arguments[1], &fault) != SHMCONF_OK) {
        return 2;
    }
    long gets = atol(arguments[2]), rounds = atol(arguments[3]);
    shmconf_int_cell_init(&cell, reader, "last");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) {
        return 77; /* not to be had here */
    }
    for (long round = 1; round <= rounds; round++) {
        char told;
        if (write(1, "?", 1) != 1 || read(0, &told, 1) != 1) {
            leave(3);
        }
        for (long i = 0; i < gets; i++) {
            if (shmconf_get_uint(reader, "list.1500", &number) != SHMCONF_OK || number != (uint64_t)told) {
                leave(4);
            }
            if (shmconf_int_cell_get(&cell, &in_cell) != SHMCONF_OK || in_cell != told) {
                leave(5);
            }
        }
    }
    leave(0);
    return 0;
}
