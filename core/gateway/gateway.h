// Gateway: the process as a whole. Loads a configuration, opens all sockets, runs workers, drains and stops. The same code runs
// in the real world, on threads, and in the simulated one, where the caller steps every loop.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>

struct moon_address;
struct moon_cli_ops;
struct moon_counters;
struct moon_filter_type;
struct moon_gateway;
struct moon_log;
struct moon_recent;
struct moon_reload_waiter;
struct moon_world;

struct moon_gateway_args {
    struct moon_world *world;
    struct moon_model *model; // the gateway takes it
    // Loads the configuration anew for a reload, on a thread of its own. NULL: no reload. 0, or an error with the report filled.
    int (*load)(void *owner, struct moon_report *report, struct moon_model **out);
    void *load_owner;
    const struct moon_filter_type *const *filters; // NULL-terminated plugins in C; NULL: none
    unsigned workers;                              // 0: as the settings say
    const char *admin;                             // "ADDRESS:PORT", or NULL
    const char *control;                           // path of the control socket, or NULL
    const char *state;    // directory of the last good configuration, or NULL: as the settings say
    bool is_last_good;    // `model` is that one, not what `load` gives
    bool *is_refused;     // set when the model does not compile; NULL: not asked
    struct moon_log *log; // outlives the gateway
    struct moon_recent *recent; // what `log` said of late, or NULL; outlives it
};

// Compiles the model, opens every socket and makes the workers. Nothing runs yet: in the real world moon_gateway_run starts it;
// in the simulated one moon_sim_run steps its loops, control and workers, until moon_gateway_is_over. 0, or an error with the
// report filled.
int moon_gateway_new(const struct moon_gateway_args *args, struct moon_report *report,
                     struct moon_gateway **out);
// Compiles a model, which it takes, and throws the result away: what `moongate check` asks. 0, or an error with the report filled.
int moon_gateway_check(struct moon_world *world, struct moon_model *model,
                       const struct moon_filter_type *const *filters, struct moon_report *report);
struct moon_explain_args {
    struct moon_world *world;
    struct moon_model *model;
    const struct moon_filter_type *const *filters;
    struct moon_slice query; // explain.h
};
// What the model, which it takes, would do with a request: a malloc'd JSON text.
int moon_gateway_explain(const struct moon_explain_args *args, struct moon_report *report,
                         char **out);
// Nothing of it runs. NULL is fine.
void moon_gateway_free(struct moon_gateway *gateway);
// Real world: starts the threads, serves until the gateway has stopped. 0 or -errno.
int moon_gateway_run(struct moon_gateway *gateway);
// From the control thread (a signal, an order): finish what is under way, then stop; the second call stops at once.
void moon_gateway_drain(struct moon_gateway *gateway);
// From the control thread: loads the configuration anew. `waiter` may be NULL (gateway/reload.h).
void moon_gateway_reload(struct moon_gateway *gateway, struct moon_reload_waiter *waiter);
bool moon_gateway_is_over(const struct moon_gateway *gateway);
// Where the port of that index is reached; port 0 has become a real one.
void moon_gateway_address(const struct moon_gateway *gateway, size_t index,
                          struct moon_address *out);
// Counters of a data worker; NULL behind the last.
const struct moon_counters *moon_gateway_counters(const struct moon_gateway *gateway, size_t index);
// Bytes of buffers in use, of all data workers.
size_t moon_gateway_buffer_len(const struct moon_gateway *gateway);

// What the command line asks of the gateway, in the real world. `filters` as above.
struct moon_cli_ops moon_gateway_cli_ops(const struct moon_filter_type *const *filters);
