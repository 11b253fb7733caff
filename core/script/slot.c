// Exchanges as Lua knows them. A slot is taken by the first hook of an exchange that runs Lua and let go with the exchange's arena;
// its generation then moves on, so that every handle made before is dead.
#include "base/arena.h"
#include "filter/filter.h"
#include "script/abi.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>

static struct moon_slot *new_slot(struct moon_vm *vm)
{
    struct moon_slot *slot = calloc(1, sizeof *slot);
    vm->slots = realloc((void *)vm->slots, (vm->slot_count + 1) * sizeof *vm->slots);
    if (!slot || !vm->slots)
        abort();
    slot->vm = vm;
    slot->index = vm->slot_count + 1; // as Lua counts
    moon_list_init(&slot->coroutines);
    vm->slots[vm->slot_count++] = slot;
    return slot;
}

// What Lua holds by the slot's index. A crowd of exchanges must not leave its variables behind.
static void forget(struct moon_slot *slot)
{
    const struct moon_vm *vm = slot->vm;
    const int refs[] = {vm->vars_ref, vm->globals_ref};
    for (size_t i = 0; vm->state && i < sizeof refs / sizeof *refs; i++) {
        lua_rawgeti(vm->state, LUA_REGISTRYINDEX, refs[i]);
        lua_pushnil(vm->state);
        lua_rawseti(vm->state, -2, (int)slot->index);
        lua_pop(vm->state, 1);
    }
}

// With the flow's arena.
static void let_go(void *arg)
{
    struct moon_slot *slot = arg;
    struct moon_vm *vm = slot->vm;
    while (!moon_list_is_empty(&slot->coroutines))
        moon_coroutine_drop(MOON_CONTAINER(slot->coroutines.next, struct moon_coroutine, mate));
    moon_collect_free(slot->collect);
    slot->collect = NULL;
    slot->flow = NULL;
    if (slot->has_tables)
        forget(slot);
    slot->generation++;
    slot->has_handle = slot->has_tables = slot->is_answered = false;
    slot->phase = MOON_ABI_EVALUATE;
    slot->client[0] = '\0';
    slot->next_free = vm->free_slot;
    vm->free_slot = slot;
    vm->slots_used_count--;
}

struct moon_slot *moon_slot_of(struct moon_vm *vm, struct moon_flow *flow)
{
    if (flow->guest)
        return flow->guest;
    struct moon_slot *slot = vm->free_slot;
    if (slot)
        vm->free_slot = slot->next_free;
    else
        slot = new_slot(vm);
    slot->flow = flow;
    flow->guest = slot;
    vm->slots_used_count++;
    moon_arena_on_free(flow->arena, let_go, slot);
    return slot;
}

int moon_slot_check(const struct moon_slot *slot, uint32_t phases)
{
    const struct moon_coroutine *current = slot->vm->current;
    if (!current || !(phases >> current->phase & 1))
        return MOON_ABI_PHASE;
    if (current->slot != slot)
        return MOON_ABI_FOREIGN;
    return current->is_task && slot->phase != current->phase ? MOON_ABI_OVER : MOON_ABI_OK;
}

void moon_slot_push(struct moon_slot *slot, lua_State *at)
{
    if (slot->has_handle) {
        lua_rawgeti(at, LUA_REGISTRYINDEX, slot->handle_ref);
        return;
    }
    struct moon_abi_exchange *handle = lua_newuserdata(at, sizeof *handle);
    *handle = (struct moon_abi_exchange){slot, slot->generation, 0};
    lua_rawgeti(at, LUA_REGISTRYINDEX, slot->vm->exchange_ref);
    lua_setmetatable(at, -2);
    lua_pushvalue(at, -1);
    if (slot->handle_ref) // its place in the registry stays with the slot
        lua_rawseti(at, LUA_REGISTRYINDEX, slot->handle_ref);
    else
        slot->handle_ref = luaL_ref(at, LUA_REGISTRYINDEX);
    slot->has_handle = true;
}

void moon_slots_free(struct moon_vm *vm)
{
    for (uint32_t i = 0; i < vm->slot_count; i++)
        free(vm->slots[i]);
    free((void *)vm->slots);
}
