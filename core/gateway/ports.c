// See ports.h. Opening happens on the control thread, before any worker hears of a change.
#include "gateway/ports.h"

#include "base/err.h"
#include "conf/report.h"
#include "io/datagram.h"
#include "io/world.h"
#include "obs/log.h"
#include "route/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HINT_LEN = 192 };

static bool is_datagram(const struct moon_ports_args *args, const struct moon_bind *bind)
{
    return moon_bind_front(args->listeners, bind)->protocol == MOON_PROTOCOL_UDP;
}

static bool is_of(const struct moon_port *port, const struct moon_bind *bind)
{
    if (port->path || bind->path)
        return port->path && bind->path && strcmp(port->path, bind->path) == 0;
    return moon_address_equal(&port->configured, &bind->address);
}

static const struct moon_port *find(const struct moon_ports_args *args,
                                    const struct moon_bind *bind, const struct moon_ports *claimed)
{
    const struct moon_ports *ports = args->before;
    for (size_t i = 0; ports && i < ports->count; i++) {
        const struct moon_port *port = &ports->items[i];
        if (is_of(port, bind) && port->is_datagram == is_datagram(args, bind) &&
            moon_port_is_gone(port, claimed))
            return port;
    }
    return NULL;
}

bool moon_port_is_gone(const struct moon_port *port, const struct moon_ports *now)
{
    for (size_t i = 0; now && i < now->count; i++)
        if (now->items[i].sockets == port->sockets)
            return false;
    return true;
}

static int open_sockets(const struct moon_ports_args *args, const struct moon_bind *bind,
                        struct moon_port *port)
{
    if (bind->path)
        return moon_world_listen_path(args->world, bind->path,
                                      moon_bind_front(args->listeners, bind)->mode,
                                      args->worker_count, port->sockets);
    if (port->is_datagram)
        return moon_world_bind(args->world, &bind->address, args->worker_count, port->sockets);
    return moon_world_listen(args->world, &bind->address, args->worker_count, port->sockets);
}

static int set_transparent(const struct moon_ports_args *args, const struct moon_bind *bind,
                           const struct moon_port *port)
{
    bool is_transparent =
        moon_bind_front(args->listeners, bind)->transparent == MOON_TRANSPARENT_TPROXY;
    if (port->is_kept &&
        !is_transparent) // a reload that is refused yet leaves the old one as it was
        return 0;
    const struct moon_listener *first = &args->listeners->listeners[bind->members[0]];
    int err = 0;
    for (unsigned i = 0; !err && i < args->worker_count; i++)
        err = moon_socket_set_transparent(port->sockets[i], is_transparent);
    if (err)
        moon_report_addf(
            args->report, first->place, "listener", "transparent",
            err == -EPERM ? "it needs CAP_NET_ADMIN or CAP_NET_RAW; \"redirect\" does not" : NULL,
            "\"tproxy\" is not permitted: %s", moon_err_text(err));
    return err;
}

static bool is_wildcard(const struct moon_address *address)
{
    static const uint8_t none[sizeof address->ip];
    return memcmp(address->ip, none, sizeof none) == 0;
}

// The port that this process has at an address which overlaps, so that the other cannot be had beside it; NULL: none.
static const struct moon_port *find_own(const struct moon_ports_args *args,
                                        const struct moon_bind *bind)
{
    const struct moon_ports *before = args->before;
    for (size_t i = 0; !bind->path && before && i < before->count; i++) {
        const struct moon_port *port = &before->items[i];
        if (!port->path && port->is_datagram == is_datagram(args, bind) &&
            port->bound.port == bind->address.port &&
            (is_wildcard(&port->bound) || is_wildcard(&bind->address)))
            return port;
    }
    return NULL;
}

// What to do about an address that is taken.
static void advise(const struct moon_ports_args *args, const struct moon_bind *bind, char *to,
                   size_t cap)
{
    const struct moon_port *own = find_own(args, bind);
    char text[MOON_ADDRESS_TEXT_LEN];
    if (!own) {
        snprintf(to, cap, "another process has this port; stop it or take another port");
        return;
    }
    moon_address_format(&own->bound, text);
    snprintf(to, cap,
             "this gateway itself has the port, at %s, until the new configuration serves; take "
             "another port, or restart",
             text);
}

static int open_port(const struct moon_ports_args *args, const struct moon_bind *bind,
                     struct moon_port *port)
{
    char text[MOON_BIND_TEXT_LEN], hint[HINT_LEN];
    const struct moon_listener *first = &args->listeners->listeners[bind->members[0]];
    port->sockets = calloc(args->worker_count, sizeof *port->sockets);
    if (!port->sockets)
        abort();
    int err = open_sockets(args, bind, port);
    if (err) {
        free(port->sockets);
        moon_bind_format(bind, &bind->address, text);
        advise(args, bind, hint, sizeof hint);
        moon_report_addf(args->report, first->place, "listener", NULL,
                         err == -EADDRINUSE ? hint : NULL, "cannot listen on %s: %s", text,
                         moon_err_text(err));
        return err;
    }
    moon_socket_address(port->sockets[0], &port->bound);
    moon_bind_format(bind, &port->bound, text);
    char *names = moon_bind_names(args->listeners, bind);
    moon_log_info(args->log, "listening on %s (%s)", text, names);
    free(names);
    return 0;
}

int moon_ports_open(const struct moon_ports_args *args, struct moon_ports *out)
{
    const struct moon_listeners *listeners = args->listeners;
    *out = (struct moon_ports){.worker_count = args->worker_count};
    out->items = calloc(listeners->bind_count + 1, sizeof *out->items);
    if (!out->items)
        abort();
    for (size_t i = 0; i < listeners->bind_count; i++) {
        const struct moon_bind *bind = &listeners->binds[i];
        const struct moon_port *kept = find(args, bind, out);
        struct moon_port *port = &out->items[i];
        *port = kept ? *kept
                     : (struct moon_port){.configured = bind->address,
                                          .path = bind->path ? strdup(bind->path) : NULL,
                                          .is_datagram = is_datagram(args, bind)};
        port->is_kept = kept != NULL;
        int err = kept ? 0 : open_port(args, bind, port);
        if (err) {
            free(port->path);
            moon_ports_fini(out, args->before, true);
            return err;
        }
        out->count = i + 1;
        err = set_transparent(args, bind, port);
        if (err) {
            moon_ports_fini(out, args->before, true);
            return err;
        }
    }
    return 0;
}

static void set_mode(const struct moon_port *port, unsigned mode, const struct moon_log *log)
{
    int err = moon_socket_set_mode(port->sockets[0], mode);
    if (err)
        moon_log_error(log, "the mode of %s stays as it was: %s", port->path, moon_err_text(err));
}

void moon_ports_settle(const struct moon_ports *ports, const struct moon_listeners *listeners,
                       const struct moon_log *log)
{
    for (size_t i = 0; i < ports->count; i++) {
        const struct moon_front *front = moon_bind_front(listeners, &listeners->binds[i]);
        if (ports->items[i].is_kept && ports->items[i].path)
            set_mode(&ports->items[i], front->mode, log);
        bool is_transparent = front->transparent == MOON_TRANSPARENT_TPROXY;
        for (unsigned k = 0; ports->items[i].is_kept && !is_transparent && k < ports->worker_count;
             k++)
            moon_socket_set_transparent(ports->items[i].sockets[k], false);
    }
}

void moon_ports_fini(struct moon_ports *ports, const struct moon_ports *successor, bool close)
{
    for (size_t i = 0; i < ports->count; i++) {
        struct moon_port *port = &ports->items[i];
        if (!moon_port_is_gone(port, successor))
            continue;
        for (unsigned k = 0; close && k < ports->worker_count; k++)
            moon_socket_free(port->sockets[k]);
        free(port->sockets);
        free(port->path);
    }
    free(ports->items);
    *ports = (struct moon_ports){0};
}
