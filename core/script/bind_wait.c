// The abi of waiting and of clocks.
#include "io/loop.h"
#include "obs/counters.h"
#include "script/abi.h"
#include "script/vm_priv.h"

void moon_abi_count_trace(void *vm, int is_abort)
{
    struct moon_counters *counters = ((struct moon_vm *)vm)->seat.counters;
    if (counters)
        moon_count_up(is_abort ? &counters->script_trace_aborts_total
                               : &counters->script_traces_total);
}

double moon_abi_now(void *vm)
{
    const struct moon_vm *self = vm;
    return self->seat.loop ? (double)moon_loop_wall_ms(self->seat.loop) / 1000 : 0;
}

double moon_abi_clock(void *vm)
{
    const struct moon_vm *self = vm;
    return self->seat.loop ? (double)moon_loop_now_ms(self->seat.loop) / 1000 : 0;
}

int moon_abi_phase(void *vm)
{
    const struct moon_vm *self = vm;
    return self->current ? self->current->phase : MOON_ABI_EVALUATE;
}

int moon_abi_current(void *vm, uint32_t *slot, uint32_t *generation)
{
    const struct moon_vm *self = vm;
    if (!self->current || !self->current->slot)
        return MOON_ABI_NONE;
    self->current->slot->has_tables = true;
    *slot = self->current->slot->index;
    *generation = self->current->slot->generation;
    return MOON_ABI_OK;
}

int moon_abi_ticket(void *vm, struct moon_abi_ticket *out)
{
    const struct moon_vm *self = vm;
    if (!self->current)
        return MOON_ABI_PHASE;
    *out = (struct moon_abi_ticket){self->current, moon_coroutine_wait(self->current, NULL, NULL)};
    return MOON_ABI_OK;
}

void moon_abi_wake(const struct moon_abi_ticket *ticket)
{
    moon_coroutine_wake(ticket->coroutine, ticket->wait);
}

int moon_abi_sleep(void *vm, double seconds)
{
    const struct moon_vm *self = vm;
    if (!self->current)
        return MOON_ABI_PHASE;
    moon_coroutine_wait(self->current, NULL, NULL);
    double ms = seconds * 1000;
    moon_loop_timer_add(self->seat.loop, &self->current->timer,
                        !(ms > 0)   ? 0 // NaN is no time
                        : ms > 1e12 ? UINT64_C(1000000000000)
                                    : (uint64_t)(ms + 0.5));
    return MOON_ABI_OK;
}
