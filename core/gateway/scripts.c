// Scripts in the life of the gateway: generations are linked to snapshots by the builder, run by workers and by control, and freed
// here, off the workers, once nobody stands on them.
#include "base/dicts.h"
#include "conf/conf.h"
#include "gateway/certificates.h"
#include "gateway/gateway_priv.h"
#include "io/loop.h"
#include "script/code.h"
#include "script/vm.h"

#include <stdlib.h>

struct grave {
    struct moon_message message; // first
    struct moon_generation *generation;
};

struct moon_generation *moon_snapshot_generation(const struct moon_snapshot *snapshot)
{
    const struct moon_model *model = snapshot ? moon_snapshot_model(snapshot) : NULL;
    return model ? moon_code_generation(moon_model_code(model)) : NULL;
}

int moon_snapshot_link(struct moon_snapshot *snapshot, const struct moon_snapshot *before,
                       const struct moon_script_host *host, struct moon_report *report)
{
    const struct moon_model *model = moon_snapshot_model(snapshot),
                            *old = before ? moon_snapshot_model(before) : NULL;
    return moon_code_link(moon_model_code(model), old ? moon_model_code(old) : NULL, host, report);
}

void moon_gateway_bury(struct moon_gateway *gateway, struct moon_generation *generation)
{
    struct grave *grave = calloc(1, sizeof *grave);
    if (!grave)
        abort();
    grave->generation = generation;
    moon_mailbox_post(gateway->graves, &grave->message);
}

static void on_grave(void *owner, struct moon_message *message)
{
    (void)owner;
    struct grave *grave = MOON_CONTAINER(message, struct grave, message);
    moon_generation_unref(grave->generation);
    free(grave);
}

static void control_started(void *owner, int err)
{
    (void)owner;
    (void)err; // control runs no init_worker
}

void moon_gateway_run_control(struct moon_gateway *gateway)
{
    struct moon_generation *generation = moon_snapshot_generation(gateway->snapshot),
                           *before = gateway->control_generation;
    if (generation == before)
        return;
    gateway->control_generation = moon_generation_ref(generation);
    if (before)
        moon_vm_close(moon_generation_vm(before, gateway->seat_count));
    moon_generation_unref(before);
    if (!generation)
        return;
    struct moon_worker *worker = gateway->control.worker;
    struct moon_vm_seat seat = {.loop = gateway->control.loop,
                                .service = worker ? moon_worker_service(worker) : NULL,
                                .certificates =
                                    moon_certificate_window_ops(gateway->certificate_window),
                                .log = gateway->args.log,
                                .worker = gateway->seat_count,
                                .is_control = true};
    moon_vm_start(moon_generation_vm(generation, gateway->seat_count), &seat, control_started,
                  gateway);
}

void moon_gateway_scripts_init(struct moon_gateway *gateway)
{
    uint64_t seed[2];
    moon_loop_random(gateway->control.loop, seed, sizeof seed);
    gateway->graves = moon_mailbox_new(gateway->control.loop, on_grave, gateway);
    gateway->scripts = (struct moon_script_host){.world = gateway->args.world,
                                                 .log = gateway->args.log,
                                                 .dicts = moon_dicts_new(seed),
                                                 .worker_count = gateway->seat_count};
}

void moon_gateway_end_control(struct moon_gateway *gateway)
{
    if (gateway->control_generation)
        moon_vm_close(moon_generation_vm(gateway->control_generation, gateway->seat_count));
}

void moon_gateway_scripts_fini(struct moon_gateway *gateway)
{
    moon_generation_unref(gateway->control_generation);
    moon_mailbox_free(gateway->graves);
}
