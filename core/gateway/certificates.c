// See certificates.h. Times of change and lengths are asked for rather than inotify: it works over every file system, and for
// the symbolic links that Kubernetes swaps.
#include "gateway/certificates.h"

#include "gateway/gateway_priv.h"
#include "io/loop.h"
#include "io/tls.h"
#include "obs/log.h"

enum { POLL_MS = 1000 };

static void tell(void *owner, bool is_fine, const char *text)
{
    const struct moon_gateway *gateway = owner;
    if (is_fine)
        moon_log_info(gateway->args.log,
                      "certificates changed: new connections get what is in %s "
                      "and its like now",
                      text);
    else
        moon_log_error(gateway->args.log, "new certificates are refused, the old ones serve: %s",
                       text);
}

static void on_poll(struct moon_timer *timer)
{
    struct moon_gateway *gateway = MOON_CONTAINER(timer, struct moon_gateway, tls_poll);
    moon_tls_hub_poll(gateway->tls, tell, gateway);
    moon_tls_clients_poll(gateway->tls, tell, gateway);
    if (moon_tls_hub_is_used(gateway->tls))
        moon_loop_timer_add(gateway->control.loop, timer, POLL_MS);
}

void moon_certificates_watch(struct moon_gateway *gateway)
{
    gateway->tls_poll.fn = on_poll;
    if (moon_tls_hub_is_used(gateway->tls) && !moon_timer_is_armed(&gateway->tls_poll))
        moon_loop_timer_add(gateway->control.loop, &gateway->tls_poll, POLL_MS);
}

void moon_certificates_stop(struct moon_gateway *gateway)
{
    if (gateway->control.loop)
        moon_loop_timer_del(gateway->control.loop, &gateway->tls_poll);
}
