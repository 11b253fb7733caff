// The admin surfaces: a worker of the control loop with a model of its own, whose one route leads to builtin:admin.
#include "base/err.h"
#include "gateway/gateway_priv.h"
#include "io/world.h"
#include "obs/log.h"

#include <errno.h>

static void add_entry(struct moon_model *model, const char *kind, struct moon_entry *entries,
                      uint32_t count)
{
    struct moon_object object = {
        .kind = kind, .place = {"--admin", 0}, .value = {.kind = MOON_VALUE_TABLE}};
    object.value.table.entries = entries;
    object.value.table.entry_count = count;
    moon_model_add(model, &object);
}

static struct moon_value text_value(struct moon_slice text)
{
    return (struct moon_value){.kind = MOON_VALUE_STRING, .string = text};
}

static struct moon_model *admin_model(void)
{
    struct moon_model *model = moon_model_new();
    struct moon_value *item = moon_model_alloc(model, sizeof *item);
    struct moon_entry *upstream = moon_model_alloc(model, 2 * sizeof *upstream);
    struct moon_entry *route = moon_model_alloc(model, 2 * sizeof *route);
    struct moon_value *plugin = moon_model_alloc(model, sizeof *plugin);
    struct moon_entry *listener = moon_model_alloc(model, sizeof *listener);
    *item = text_value(MOON_SLICE("builtin:admin"));
    upstream[0] = (struct moon_entry){MOON_SLICE("endpoints"), {.kind = MOON_VALUE_TABLE}};
    upstream[0].value.table.items = item;
    upstream[0].value.table.item_count = 1;
    upstream[1] = (struct moon_entry){MOON_SLICE("name"), text_value(MOON_SLICE("admin"))};
    route[0] = (struct moon_entry){MOON_SLICE("backends"), text_value(MOON_SLICE("admin"))};
    *plugin = text_value(MOON_SLICE("upload"));
    route[1] = (struct moon_entry){MOON_SLICE("plugins"), {.kind = MOON_VALUE_TABLE}};
    route[1].value.table.items = plugin;
    route[1].value.table.item_count = 1;
    listener[0] = (struct moon_entry){MOON_SLICE("port"), {.kind = MOON_VALUE_NUMBER, .number = 0}};
    add_entry(model, "upstream", upstream, 2);
    add_entry(model, "route", route, 2);
    add_entry(model, "listener", listener, 1);
    return model;
}

// ---- opening

static int open_address(struct moon_gateway *gateway, struct moon_report *report)
{
    struct moon_address at;
    struct moon_socket *socket = NULL;
    char text[MOON_ADDRESS_TEXT_LEN];
    struct moon_place nowhere = {NULL, 0};
    if (!moon_address_parse(moon_slice_from(gateway->args.admin), &at)) {
        moon_report_addf(report, nowhere, NULL, NULL,
                         "an IP address with a port, \"127.0.0.1:9080\"",
                         "--admin: not an address: \"%s\"", gateway->args.admin);
        return MOON_ECONFIG;
    }
    int err = moon_world_listen(gateway->args.world, &at, 1, &socket);
    if (!err) {
        moon_socket_address(socket, &at);
        err = moon_worker_listen(gateway->control.worker, socket, 0);
    }
    if (err) {
        moon_socket_free(socket);
        moon_report_addf(report, nowhere, NULL, NULL, NULL, "--admin %s: %s", gateway->args.admin,
                         moon_err_text(err));
        return err;
    }
    moon_address_format(&at, text);
    moon_log_info(gateway->args.log, "admin on %s", text);
    return 0;
}

// The control socket of this process, unless another gateway has it: then this one serves without.
static void open_local(struct moon_gateway *gateway)
{
    struct moon_socket *socket = NULL;
    const char *path = gateway->args.control;
    const struct moon_log *log = gateway->args.log;
    if (!path)
        return;
    int err = moon_world_listen_local(gateway->args.world, path, &socket);
    if (!err)
        err = moon_worker_listen(gateway->control.worker, socket, 0);
    if (!err) {
        moon_log_info(log, "control on %s", path);
        return;
    }
    moon_socket_free(socket);
    if (err == -EADDRINUSE)
        moon_log_warn(log, "no control socket: another gateway has %s", path);
    else
        moon_log_warn(log, "no control socket: %s: %s", path, moon_err_text(err));
}

int moon_admin_open(struct moon_gateway *gateway, struct moon_report *report)
{
    if (!gateway->args.admin && !gateway->args.control)
        return 0;
    moon_admin_ops_init(gateway);
    gateway->admin_builtin = moon_admin_builtin(&gateway->admin_ops);
    moon_sections_init(&gateway->admin_sections, moon_admin_filters, gateway->registry,
                       gateway->tls, &gateway->admin_builtin, NULL);
    int err = moon_sections_compile(&gateway->admin_sections, admin_model(), NULL, report,
                                    &gateway->admin_snapshot);
    if (!err)
        err = moon_seat_fill(gateway, &gateway->control, gateway->admin_snapshot,
                             &gateway->admin_connections);
    if (!err && gateway->args.admin)
        err = open_address(gateway, report);
    if (!err)
        open_local(gateway);
    return err;
}
