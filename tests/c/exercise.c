/* exercise DIRECTORY NAME...: asks everything of each segment, and prints what opening it gave, one line each. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include "exercise.h"

int
main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: exercise DIRECTORY NAME...\n");
        return 2;
    }
    for (int i = 2; i < count; i++) {
        shmconf_fault fault = {0};
        int result = exercise(arguments[1], arguments[i], &fault);
        printf("%s %d %s\n", arguments[i], result, result == SHMCONF_OK ? "" : fault.text);
    }
    return 0;
}
