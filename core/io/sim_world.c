// The simulated world itself: clock, random numbers, trace, faults, files, limits.
#include "io/sim_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DESCRIPTOR_LIMIT = 65536, FIRST_PORT = 32768 };

static const uint64_t WALL_START_MS = 1700000000000u; // some day in 2023

struct sim_file {
    struct sim_file *next;
    char *path, *text;
    size_t len;
};

// ---- chance (splitmix64: Steele, Lea and Flood, OOPSLA 2014)

uint64_t moon_sim_random_u64(struct moon_world *world)
{
    uint64_t z = (sim_world(world)->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_below(struct sim_world *world, uint64_t bound)
{
    return moon_sim_random_u64(&world->base) % bound;
}

bool sim_chance(struct sim_world *world, uint32_t permille)
{
    return permille && sim_below(world, 1000) < permille;
}

uint64_t sim_latency_ms(struct sim_world *world)
{
    uint32_t least = world->faults.latency_min_ms, most = world->faults.latency_max_ms;
    return most > least ? least + sim_below(world, most - least + 1) : least;
}

size_t sim_short(struct sim_world *world, size_t len)
{
    if (len < 2 || !sim_chance(world, world->faults.short_read_permille))
        return len;
    return 1 + sim_below(world, len);
}

// ---- the trace (FNV-1a)

static void trace_word(struct sim_world *world, uint64_t word)
{
    for (int i = 0; i < 8; i++)
        world->hash = (world->hash ^ ((word >> (8 * i)) & 0xff)) * 0x100000001b3u;
}

void sim_trace(struct sim_world *world, unsigned what, uint64_t whom, uint64_t how_much)
{
    trace_word(world, world->now_ms << 8 | what);
    trace_word(world, whom << 32 ^ how_much);
}

uint64_t moon_sim_trace_hash(const struct moon_world *world)
{
    return ((const struct sim_world *)world)->hash;
}

// ---- time

uint64_t moon_sim_now_ms(const struct moon_world *world)
{
    return ((const struct sim_world *)world)->now_ms;
}

void moon_sim_jump_wall(struct moon_world *world, int64_t delta_ms)
{
    sim_world(world)->wall_ms += (uint64_t)delta_ms;
}

static uint64_t world_wall_ms(const struct moon_world *base)
{
    const struct sim_world *world = (const struct sim_world *)base;
    return world->wall_ms + world->now_ms;
}

// ---- files

static struct sim_file *find_file(struct sim_world *world, const char *path)
{
    struct sim_file *file = world->files;
    while (file && strcmp(file->path, path) != 0)
        file = file->next;
    return file;
}

static char *copy_text(const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (!copy)
        abort();
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void moon_sim_add_file(struct moon_world *base, const char *path, const char *text, size_t len)
{
    struct sim_world *world = sim_world(base);
    struct sim_file *file = find_file(world, path);
    if (!file) {
        file = calloc(1, sizeof *file);
        if (!file)
            abort();
        file->path = copy_text(path, strlen(path));
        file->next = world->files;
        world->files = file;
    }
    free(file->text);
    file->text = copy_text(text, len);
    file->len = len;
}

static int world_read_file(struct moon_world *world, const char *path, size_t max_len, char **out,
                           size_t *out_len)
{
    const struct sim_file *file = find_file(sim_world(world), path);
    if (!file)
        return -ENOENT;
    if (file->len > max_len)
        return -EFBIG;
    *out = copy_text(file->text, file->len);
    *out_len = file->len;
    return 0;
}

// ---- limits and faults

void moon_sim_set_descriptor_limit(struct moon_world *world, size_t count)
{
    world->descriptor_limit = count;
}

bool sim_descriptor_take(struct sim_world *world, const struct sim_loop *loop, size_t count)
{
    bool is_outside = loop && loop->is_outside;
    if (!is_outside && world->descriptor_count + count > world->base.descriptor_limit)
        return false;
    world->descriptor_count += is_outside ? 0 : count;
    world->live_count++;
    return true;
}

void sim_descriptor_give(struct sim_world *world, const struct sim_loop *loop, size_t count)
{
    world->descriptor_count -= loop && loop->is_outside ? 0 : count;
    world->live_count--;
}

size_t moon_sim_live_count(const struct moon_world *world)
{
    return ((const struct sim_world *)world)->live_count;
}

void moon_sim_set_faults(struct moon_world *base, const struct moon_sim_faults *faults)
{
    struct sim_world *world = sim_world(base);
    world->faults = *faults;
    if (world->faults.socket_buffer_len == 0)
        world->faults.socket_buffer_len = SIM_BUFFER_LEN;
}

void moon_sim_set_port(struct moon_world *base, uint16_t port, enum moon_sim_port how)
{
    struct sim_world *world = sim_world(base);
    if (!world->ports)
        world->ports = calloc(UINT16_MAX + 1, 1);
    if (!world->ports)
        abort();
    world->ports[port] = (uint8_t)how;
}

static size_t world_memory_len(const struct moon_world *world)
{
    (void)world;
    return (size_t)1 << 30;
}

static unsigned world_cpu_count(const struct moon_world *world)
{
    (void)world;
    return 1;
}

static void world_print(struct moon_world *world, const char *text, size_t len)
{
    (void)text;
    sim_trace(sim_world(world), 'p', 0, len);
}

static int world_thread_start(struct moon_world *world, void (*fn)(void *arg), void *arg,
                              struct moon_thread **out)
{
    (void)world;
    (void)fn;
    (void)arg;
    *out = NULL;
    return -ENOTSUP;
}

// ---- life

static void world_free(struct moon_world *base)
{
    struct sim_world *world = sim_world(base);
    sim_sockets_sweep(world);
    sim_conns_sweep(world, true);
    for (struct sim_file *file = world->files, *next; file; file = next) {
        next = file->next;
        free(file->path);
        free(file->text);
        free(file);
    }
    free(world->events);
    free(world->ports);
    free(world);
}

static const struct moon_world_ops world_ops = {
    .free = world_free,
    .loop_new = sim_loop_new,
    .listen = sim_listen,
    .mailbox_new = sim_mailbox_new,
    .memory_len = world_memory_len,
    .wall_ms = world_wall_ms,
    .print = world_print,
    .cpu_count = world_cpu_count,
    .read_file = world_read_file,
    .thread_start = world_thread_start,
};

struct moon_world *moon_world_new_sim(uint64_t seed, const struct moon_sim_faults *faults)
{
    struct sim_world *world = calloc(1, sizeof *world);
    if (!world)
        abort();
    world->base = (struct moon_world){&world_ops, DESCRIPTOR_LIMIT};
    world->random = seed;
    world->hash = 0xcbf29ce484222325u;
    world->now_ms = 1000;
    world->wall_ms = WALL_START_MS;
    world->next_port = FIRST_PORT;
    moon_list_init(&world->loops);
    moon_list_init(&world->conns);
    moon_list_init(&world->sockets);
    moon_list_init(&world->dead_sockets);
    moon_sim_set_faults(&world->base, faults);
    return &world->base;
}
