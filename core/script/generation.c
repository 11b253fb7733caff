// See generation.h.
#include "script/generation.h"

#include "script/code.h"
#include "script/inputs.h"
#include "script/instance.h"
#include "script/state.h"
#include "script/vm.h"

#include <stdatomic.h>
#include <stdlib.h>

struct moon_generation {
    _Atomic unsigned ref_count;
    unsigned vm_count;
    uint32_t next_conf_id; // the builder's
    struct moon_vm *vms[];
};

struct moon_generation *moon_generation_ref(struct moon_generation *generation)
{
    if (generation)
        atomic_fetch_add_explicit(&generation->ref_count, 1, memory_order_relaxed);
    return generation;
}

void moon_generation_unref(struct moon_generation *generation)
{
    if (!generation ||
        atomic_fetch_sub_explicit(&generation->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (unsigned i = 0; i < generation->vm_count; i++)
        moon_vm_free(generation->vms[i]);
    free(generation);
}

struct moon_vm *moon_generation_vm(const struct moon_generation *generation, unsigned worker)
{
    return generation->vms[worker];
}

struct moon_generation *moon_code_generation(const struct moon_code *code)
{
    return code ? code->generation : NULL;
}

// ---- linking

static int make(struct moon_code *code, const struct moon_script_host *host,
                struct moon_report *report)
{
    unsigned count = host->worker_count + 1;
    struct moon_generation *generation =
        calloc(1, sizeof *generation + count * sizeof generation->vms[0]);
    if (!generation)
        abort();
    atomic_init(&generation->ref_count, 1);
    generation->next_conf_id = 1;
    for (unsigned i = 0; i < count; i++) {
        struct moon_vm_args args = {host, code, i, i == host->worker_count};
        int err = moon_vm_new(&args, report, &generation->vms[i]);
        if (err) {
            moon_generation_unref(generation);
            return err;
        }
        generation->vm_count = i + 1;
    }
    code->generation = generation;
    return 0;
}

// Plugins are known by their place in the code that the generation was made for.
static void take_places(struct moon_code *code, const struct moon_code *from)
{
    for (size_t i = 0; i < code->plugin_count; i++)
        code->plugins[i]->index = moon_code_plugin(from, code->plugins[i]->name)->index;
}

int moon_code_link(struct moon_code *code, const struct moon_code *before,
                   const struct moon_script_host *host, struct moon_report *report)
{
    int err = 0;
    if (!code)
        return 0;
    moon_inputs_freeze(code->inputs);
    if (before && before->generation && moon_code_equal(before, code)) {
        code->generation = moon_generation_ref(before->generation);
        take_places(code, before);
    } else {
        before = NULL;
        if (code->function_count || code->plugin_count || code->has_tasks)
            err = make(code, host, report);
    }
    moon_state_free(code->first);
    code->first = NULL;
    if (!err && code->generation)
        moon_instances_number(code, before, &code->generation->next_conf_id);
    return err;
}
