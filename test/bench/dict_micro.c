// Nanoseconds per operation of a shared dictionary: one thread and no one else, then two threads on the same dictionary, on the
// same key. Prints a line per work: one thread's CPU time for one operation, of two threads with what they spend on waiting.
#include "base/dict.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TURNS = 60, TURN_COUNT = 10000, KEY_COUNT = 1000, KEY_LEN = 18 };

static const uint64_t seed[2] = {0x0123456789abcdefu, 0xfedcba9876543210u};

struct bed {
    struct moon_dict *dict;
    char (*keys)[KEY_LEN + 1];
    size_t key_count;
    uint64_t sum;
};

typedef void work_fn(struct bed *bed, const char *key, size_t key_len, size_t i);

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void check(bool is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "dict_micro: %s\n", what);
    exit(1);
}

static void get(struct bed *bed, const char *key, size_t key_len, size_t i)
{
    char buffer[256];
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = sizeof buffer};
    check(moon_dict_get(bed->dict, key, key_len, i, &value) == MOON_DICT_OK, "get");
    bed->sum += value.len;
}

static void get_missing(struct bed *bed, const char *key, size_t key_len, size_t i)
{
    struct moon_dict_value value = {0};
    check(moon_dict_get(bed->dict, key, key_len - 1, i, &value) == MOON_DICT_NOT_FOUND, "missing");
}

static void incr(struct bed *bed, const char *key, size_t key_len, size_t i)
{
    struct moon_dict_incr incr = {.by = 1, .has_init = 1};
    check(moon_dict_incr(bed->dict, key, key_len, i, &incr) == MOON_DICT_OK, "incr");
    bed->sum += (uint64_t)incr.number;
}

static void set_len(struct bed *bed, const char *key, size_t key_len, size_t i, size_t len)
{
    static const char text[4096];
    struct moon_dict_set set = {.type = MOON_DICT_STRING, .string = text, .len = len};
    check(moon_dict_set(bed->dict, key, key_len, i, &set) == MOON_DICT_OK, "set");
    bed->sum += set.is_forcible;
}

static void set_same(struct bed *bed, const char *key, size_t key_len, size_t i)
{
    set_len(bed, key, key_len, i, 100);
}

static void set_mixed(struct bed *bed, const char *key, size_t key_len, size_t i)
{
    set_len(bed, key, key_len, i, (i * 2654435761u >> 7) % 1000);
}

static double run(struct bed *bed, work_fn *work, size_t from, size_t count)
{
    size_t key = from % bed->key_count;
    double start = now_ns();
    for (size_t i = from; i < from + count; i++, key = key + 1 == bed->key_count ? 0 : key + 1)
        work(bed, bed->keys[key], KEY_LEN, i);
    return (now_ns() - start) / (double)count;
}

static struct bed bed_of(size_t dict_len, size_t key_count)
{
    struct bed bed = {.dict = moon_dict_try_new(dict_len, seed), .key_count = key_count};
    bed.keys = calloc(key_count, sizeof *bed.keys);
    check(bed.dict && bed.keys, "memory");
    for (size_t i = 0; i < key_count; i++)
        snprintf(bed.keys[i], KEY_LEN + 1, "user:%08u:hits", (unsigned)i);
    return bed;
}

static void measure(const char *name, struct bed bed, work_fn *before, work_fn *work)
{
    double best = 1e18;
    if (before)
        run(&bed, before, 0, bed.key_count);
    for (int turn = 0; turn < TURNS; turn++) { // short: on a busy machine some go undisturbed
        double took = run(&bed, work, turn * (size_t)TURN_COUNT, TURN_COUNT);
        best = took < best ? took : best;
    }
    printf("%-44s %6.1f ns  (check %llu)\n", name, best, (unsigned long long)bed.sum % 1000);
    moon_dict_free(bed.dict);
    free(bed.keys);
}

struct thread {
    pthread_t id;
    struct bed bed;
    work_fn *work;
    size_t from;
    double took_ns;
};

static void *thread_run(void *arg)
{
    struct thread *thread = arg;
    thread->took_ns = run(&thread->bed, thread->work, thread->from, 2000000);
    return NULL;
}

static void measure_two(const char *name, struct bed bed, work_fn *work)
{
    struct thread threads[2] = {{.bed = bed, .work = work},
                                {.bed = bed, .work = work, .from = 500}};
    run(&bed, work, 0, bed.key_count);
    for (int i = 0; i < 2; i++)
        check(pthread_create(&threads[i].id, NULL, thread_run, &threads[i]) == 0, "thread");
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i].id, NULL);
    printf("%-44s %6.1f ns\n", name, (threads[0].took_ns + threads[1].took_ns) / 2);
    moon_dict_free(bed.dict);
    free(bed.keys);
}

int main(void)
{
    const size_t mib = 1048576;
    measure("get, 100 bytes, 1,000 keys", bed_of(mib, KEY_COUNT), set_same, get);
    measure("get, a number, 1,000 keys", bed_of(mib, KEY_COUNT), incr, get);
    measure("get, no such key", bed_of(mib, KEY_COUNT), set_same, get_missing);
    measure("incr, 1,000 keys", bed_of(mib, KEY_COUNT), NULL, incr);
    measure("set, 100 bytes over 100", bed_of(mib, KEY_COUNT), NULL, set_same);
    measure("set, 0 to 999 bytes over another length", bed_of(4 * mib, KEY_COUNT), NULL, set_mixed);
    measure("set, new keys, each evicts, 0 to 999 bytes", bed_of(mib, 300000), NULL, set_mixed);
    measure("get, a number, 500,000 keys (64 MiB)", bed_of(64 * mib, 500000), incr, get);
    measure("incr, 500,000 keys (64 MiB)", bed_of(64 * mib, 500000), NULL, incr);
    measure_two("incr, two threads, 1,000 keys", bed_of(mib, KEY_COUNT), incr);
    measure_two("incr, two threads, 1,000 keys, 16 shards", bed_of(16 * mib, KEY_COUNT), incr);
    measure_two("incr, two threads, one key", bed_of(mib, 1), incr);
    return 0;
}
