// The body of struct moon_gateway, and the seams between the files of this room:
//   gateway.c  life: workers, drain, the end    sections.c  compiling      reload.c         new configurations
//   ports.c    bound addresses                  worker.c    one worker     admin_*.c        the admin surfaces
//   last_good.c  what serves, kept on disk   surveys.c  what connections do   obtain.c  certificates by ACME
#pragma once

#include "admin/admin.h"
#include "base/buffer.h"
#include "base/list.h"
#include "filter/source.h"
#include "gateway/gateway.h"
#include "gateway/last_good.h"
#include "gateway/ports.h"
#include "gateway/reload.h"
#include "gateway/surveys.h"
#include "gateway/telemetry.h"
#include "gateway/worker.h"
#include "io/mailbox.h"
#include "script/generation.h"
#include "upstream/upstream.h"

#include <stdatomic.h>

enum { SECTION_COUNT = 7 };

// Sections with their registries filled in; they outlive the snapshots compiled from them.
struct moon_sections {
    struct moon_section access, upstreams, listeners, actions, listener_plugins;
    const struct moon_section *order[SECTION_COUNT];
    const struct moon_builtin *builtins[3];
    struct moon_upstream_parts upstream_parts;
    struct moon_filter_registry filters;
};

struct moon_seat {
    struct moon_gateway *gateway;
    struct moon_loop *loop;
    struct moon_worker *worker;
    struct moon_thread *thread;
    struct moon_message started, draining, drained; // each posted once, by the worker
    int start_err;
};

struct moon_gateway {
    struct moon_gateway_args args;
    struct moon_sections sections, admin_sections;
    struct moon_registry *registry; // what is known of upstreams beyond any snapshot
    struct moon_tls_hub *tls;       // certificates and sessions beyond any snapshot
    struct moon_renewals *renewals; // certificates that it obtains
    struct moon_acme *acme;         // who obtains them, on the control loop; NULL: nobody yet
    struct moon_timer tls_poll;     // looks for files that have changed
    struct moon_list fetches;       // of OCSP responses
    unsigned fetch_count;
    uint64_t ocsp_fine_count, ocsp_failed_count;
    size_t staples_missing_count; // as it was told last
    struct moon_mailbox *certificate_orders;
    struct moon_certificate_window *certificate_window; // of control's scripts
    struct moon_snapshot *snapshot, *admin_snapshot;    // the newest; it owns its model
    struct moon_telemetry *telemetry;                   // outlives snapshots and workers
    struct moon_ports ports;
    struct moon_admin_ops admin_ops;
    struct moon_builtin admin_builtin;
    struct moon_buffer_budget buffers;
    struct moon_connection_budget connections, admin_connections;
    struct moon_seat *seats; // of the data workers
    unsigned seat_count, started_count, draining_count, drained_count;
    struct moon_seat control;           // its worker serves the admin surfaces, where there are any
    struct moon_discovery *discovery;   // on the control loop
    struct moon_health_monitor *health; // as it
    struct moon_name_desk *name_desk;   // the same for names of no configuration
    struct moon_mailbox *mailbox;
    struct moon_reload reload;
    struct moon_surveys surveys;
    struct moon_last_good last_good;
    struct moon_script_host scripts;
    struct moon_generation *control_generation; // whose VM of control runs; a reference
    struct moon_mailbox *graves;                // generations that workers have done with
    uint64_t start_ms;                          // of the control loop's clock, which never jumps
    atomic_bool is_draining;
    bool is_running; // its threads do
    bool is_over;
    int run_err; // of starting the threads
};

// sections.c
// `series`: what the model names is counted there; NULL: it is not.
void moon_sections_init(struct moon_sections *sections,
                        const struct moon_filter_type *const *filters,
                        struct moon_registry *registry, struct moon_tls_hub *tls,
                        const struct moon_builtin *extra, struct moon_series_names *series);
// 0 and a snapshot that owns the model, or MOON_ECONFIG: then the model is freed. `before`: what did not change is taken from
// it; NULL: nothing is. Thread safe.
int moon_sections_compile(const struct moon_sections *sections, struct moon_model *model,
                          const struct moon_snapshot *before, struct moon_report *report,
                          struct moon_snapshot **out);

// scripts.c
// The generation of the snapshot's code, or NULL.
struct moon_generation *moon_snapshot_generation(const struct moon_snapshot *snapshot);
// On the builder: gives the code of a snapshot its generation, perhaps that of the one `before` (NULL: none). 0, or MOON_ECONFIG
// with the report filled.
int moon_snapshot_link(struct moon_snapshot *snapshot, const struct moon_snapshot *before,
                       const struct moon_script_host *host, struct moon_report *report);
void moon_gateway_scripts_init(struct moon_gateway *gateway);
void moon_gateway_scripts_fini(struct moon_gateway *gateway);
// The VM of control is that of the newest snapshot.
void moon_gateway_run_control(struct moon_gateway *gateway);
// What runs on control ends, before its worker does.
void moon_gateway_end_control(struct moon_gateway *gateway);
// Thread safe; takes the reference.
void moon_gateway_bury(struct moon_gateway *gateway, struct moon_generation *generation);

// gateway.c
void moon_gateway_log_warnings(const struct moon_log *log, const struct moon_report *report);
// Bounds of the process as the newest snapshot has them; workers may run.
void moon_gateway_size_budgets(struct moon_gateway *gateway);
// Of a snapshot with a model.
struct moon_telemetry_args moon_gateway_telemetry_args(const struct moon_gateway *gateway,
                                                       const struct moon_snapshot *snapshot,
                                                       struct moon_report *report);
// A worker on the seat's loop. 0 or -ENOMEM.
int moon_seat_fill(struct moon_gateway *gateway, struct moon_seat *seat,
                   struct moon_snapshot *snapshot, struct moon_connection_budget *connections);

// admin_ops.c
void moon_admin_ops_init(struct moon_gateway *gateway);

// admin_port.c
int moon_admin_open(struct moon_gateway *gateway, struct moon_report *report);
