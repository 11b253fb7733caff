// What is under way between the ends of connections: a heap by time of arrival, first in first out within a millisecond.
#include "io/sim_priv.h"

#include <stdlib.h>

static bool is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void swap(struct sim_event *a, struct sim_event *b)
{
    struct sim_event held = *a;
    *a = *b;
    *b = held;
}

static void push(struct sim_world *world, struct sim_event event)
{
    if (world->event_count == world->event_cap) {
        world->event_cap = world->event_cap ? world->event_cap * 2 : 64;
        world->events = realloc(world->events, world->event_cap * sizeof *world->events);
        if (!world->events)
            abort();
    }
    struct sim_event *heap = world->events;
    size_t at = world->event_count++;
    for (heap[at] = event; at > 0 && is_before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&heap[at], &heap[(at - 1) / 2]);
}

static struct sim_event pop(struct sim_world *world)
{
    struct sim_event *heap = world->events, first = heap[0];
    size_t count = --world->event_count;
    heap[0] = heap[count];
    for (size_t at = 0;;) {
        size_t least = 2 * at + 1;
        if (least + 1 < count && is_before(&heap[least + 1], &heap[least]))
            least++;
        if (least >= count || !is_before(&heap[least], &heap[at]))
            return first;
        swap(&heap[least], &heap[at]);
        at = least;
    }
}

void sim_send_at(struct sim_stream *to, enum sim_event_kind kind, size_t len, uint64_t at_ms)
{
    struct sim_world *world = to->conn->world;
    to->conn->event_count++;
    push(world, (struct sim_event){at_ms, world->event_order++, to, len, kind});
}

void sim_send(struct sim_stream *to, enum sim_event_kind kind, size_t len)
{
    struct sim_world *world = to->conn->world;
    struct sim_stream *from = sim_peer(to);
    uint64_t at_ms = world->now_ms + sim_latency_ms(world);
    if (at_ms < from->arrival_ms)
        at_ms = from->arrival_ms;
    from->arrival_ms = at_ms;
    sim_send_at(to, kind, len, at_ms);
}

uint64_t sim_wire_next_ms(const struct sim_world *world)
{
    return world->event_count ? world->events[0].at_ms : UINT64_MAX;
}

void sim_wire_deliver(struct sim_world *world)
{
    struct sim_event event = pop(world);
    struct sim_stream *to = event.to;
    to->conn->event_count--;
    sim_trace(world, (unsigned)event.kind, to->conn->id << 1 | (to == &to->conn->ends[1]),
              event.len);
    if (event.kind == SIM_CONNECT)
        sim_connect_arrive(to);
    else
        sim_stream_arrive(to, &event);
}
