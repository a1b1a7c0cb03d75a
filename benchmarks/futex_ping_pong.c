/* futex_ping_pong anywhere|together|apart TURNS
 *
 * Two processes wake each other in turns, each asleep on a word of its own in memory that both map. Prints the seconds
 * of one wake-up: all the time over the waits that did sleep. (A side that passes the turn before the other has come
 * to sleep wakes nobody.) `anywhere` leaves the processors to the scheduler; `together` holds both sides to one,
 * `apart` to two. See wakeup.py. */

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

struct side {
    _Alignas(64) _Atomic uint32_t word;
    _Alignas(64) long slept;
};

static void fail(const char *what)
{
    fprintf(stderr, "futex_ping_pong: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void stay_on(int processor)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        fail("sched_getaffinity");
    for (int number = 0; number < CPU_SETSIZE; number++) {
        if (!CPU_ISSET(number, &allowed) || processor-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(number, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0)
            fail("sched_setaffinity");
        return;
    }
    errno = 0;
    fail("there are not enough processors");
}

static void pass_to(struct side *other, uint32_t turn)
{
    atomic_store_explicit(&other->word, turn, memory_order_release);
    if (syscall(SYS_futex, &other->word, FUTEX_WAKE, 1, NULL, NULL, 0) < 0)
        fail("FUTEX_WAKE");
}

static void await(struct side *own, uint32_t turn)
{
    while (atomic_load_explicit(&own->word, memory_order_acquire) != turn) {
        if (syscall(SYS_futex, &own->word, FUTEX_WAIT, turn - 1, NULL, NULL, 0) == 0)
            own->slept++;
        else if (errno != EAGAIN && errno != EINTR)
            fail("FUTEX_WAIT");
    }
}

int main(int count, char **arguments)
{
    if (count != 3)
        fail("usage: futex_ping_pong anywhere|together|apart TURNS");
    int apart = strcmp(arguments[1], "apart") == 0, anywhere = strcmp(arguments[1], "anywhere") == 0;
    uint32_t turns = (uint32_t)strtoul(arguments[2], NULL, 10);
    struct side *sides = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sides == MAP_FAILED)
        fail("mmap");

    pid_t parent = getpid(), child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (!anywhere)
            stay_on(apart);
        for (uint32_t turn = 1; turn <= turns; turn++) {
            await(&sides[1], turn);
            pass_to(&sides[0], turn);
        }
        _exit(0);
    }
    if (!anywhere)
        stay_on(0);

    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (uint32_t turn = 1; turn <= turns; turn++) {
        pass_to(&sides[1], turn);
        await(&sides[0], turn);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("the other side failed");
    double seconds = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) * 1e-9;
    long slept = sides[0].slept + sides[1].slept;
    if (slept < (long)turns) {
        errno = 0;
        fail("the two met awake too often to say what a wake-up takes");
    }
    printf("%.6e\n", seconds / (double)slept);
    return 0;
}
