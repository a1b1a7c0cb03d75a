/* watch SEGMENT PATH [COUNT]: prints the value at PATH now and whenever a new version is published, one line each, until
 * COUNT lines are printed or SIGINT or SIGTERM comes.
 *
 * The runtime directory is $SHMCONF_DIR, or the first of the usual places that holds the segment. A number, a boolean or
 * a text is printed as such, of anything else its size. Exit codes: 0 done; 1 failed; 2 usage; 69 no such segment, or
 * nothing published in it yet. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

#include <inttypes.h>
#include <signal.h>

enum { DONE = 0, FAILED = 1, USAGE = 2, UNAVAILABLE = 69 };

/* A signal sets the flag and ends a wait that is under way; one that comes just before a wait is noticed after this. */
static const double LONGEST_WAIT = 1.0; /* seconds */
static volatile sig_atomic_t stopped;

static void
stop(int number)
{
    (void)number;
    stopped = 1;
}

static int
explain(const shmconf_fault *fault)
{
    fprintf(stderr, "watch: %s\n", fault->text);
    return fault->result == SHMCONF_NOT_FOUND ? UNAVAILABLE : FAILED;
}

/* Prints a value that was read as msgpack. */
static void
print_value(const unsigned char *value, size_t length)
{
    int64_t integer;
    uint64_t natural;
    double number;
    bool truth;
    const char *text;
    size_t text_length;
    if (shmconf_as_int(value, length, &integer) == SHMCONF_OK) {
        printf("%" PRId64, integer);
    }
    else if (shmconf_as_uint(value, length, &natural) == SHMCONF_OK) {
        printf("%" PRIu64, natural);
    }
    else if (shmconf_as_double(value, length, &number) == SHMCONF_OK) {
        printf("%.17g", number);
    }
    else if (shmconf_as_bool(value, length, &truth) == SHMCONF_OK) {
        printf("%s", truth ? "true" : "false");
    }
    else if (shmconf_as_string(value, length, &text, &text_length) == SHMCONF_OK) {
        printf("%.*s", (int)text_length, text);
    }
    else {
        printf("(%zu bytes of msgpack)", length);
    }
}

/* One line: the version and the value, both from one snapshot, so that they belong together. *version is that version. */
static int
print_line(shmconf_reader *config, const char *path, uint64_t *version)
{
    shmconf_snapshot snapshot;
    const unsigned char *value;
    size_t length;
    if (shmconf_snapshot_take(config, &snapshot) != SHMCONF_OK) {
        return explain(shmconf_last_fault(config));
    }
    *version = snapshot.version;
    int result = shmconf_snapshot_get(&snapshot, path, &value, &length);
    if (result == SHMCONF_OK || result == SHMCONF_MISSING) {
        printf("%" PRIu64 " %s = ", snapshot.version, path);
        result == SHMCONF_OK ? print_value(value, length) : (void)printf("(nothing)");
        printf("\n");
    }
    else {
        fprintf(stderr, "watch: '%s': %s\n", path, shmconf_describe(result));
    }
    shmconf_snapshot_free(&snapshot);
    if (result == SHMCONF_BAD_PATH) {
        return USAGE;
    }
    if (fflush(stdout) != 0) { /* whoever reads the lines has gone */
        perror("watch");
        return FAILED;
    }
    return result == SHMCONF_OK || result == SHMCONF_MISSING ? DONE : FAILED;
}

static int
watch(shmconf_reader *config, const char *path, unsigned long lines)
{
    uint64_t seen = 0;
    int result = print_line(config, path, &seen);
    while (result == DONE && --lines > 0 && !stopped) {
        int waited;
        do {
            waited = shmconf_wait(config, seen, LONGEST_WAIT, NULL);
        } while ((waited == SHMCONF_TIMEOUT || waited == SHMCONF_INTERRUPTED) && !stopped);
        if (stopped) {
            break;
        }
        result = waited == SHMCONF_OK ? print_line(config, path, &seen) : explain(shmconf_last_fault(config));
    }
    return result;
}

int
main(int count, char **arguments)
{
    struct sigaction action = {.sa_handler = stop};
    char *rest = "";
    unsigned long lines = count == 4 ? strtoul(arguments[3], &rest, 10) : ULONG_MAX;
    if (count < 3 || count > 4 || *rest != '\0' || lines == 0) {
        fprintf(stderr, "usage: watch SEGMENT PATH [COUNT]\n");
        return USAGE;
    }
    sigaction(SIGINT, &action, NULL); /* without SA_RESTART, so that they end a wait */
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    shmconf_reader *config;
    shmconf_fault fault;
    int result = shmconf_open(&config, arguments[1], NULL, &fault);
    if (result != SHMCONF_OK) {
        explain(&fault);
        return result == SHMCONF_BAD_NAME ? USAGE : result == SHMCONF_NOT_FOUND ? UNAVAILABLE : FAILED;
    }
    result = watch(config, arguments[2], lines);
    shmconf_close(config);
    return result;
}
