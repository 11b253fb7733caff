// See certificates.h. Times of change and lengths are asked for rather than inotify: it works over every file system, and for
// the symbolic links that Kubernetes swaps.
#include "gateway/certificates.h"

#include "base/json.h"
#include "gateway/gateway_priv.h"
#include "gateway/staples.h"
#include "io/loop.h"
#include "io/mailbox.h"
#include "io/tls.h"
#include "obs/log.h"
#include "obs/renewals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { POLL_MS = 1000, PROBLEM_LEN = 400 };

// Lives until its answer is back at the window, or the window goes.
struct moon_certificate_order {
    struct moon_message message; // first
    struct moon_list node;       // in window->orders
    struct moon_certificate_window *window;
    struct moon_slice texts[3]; // one block of memory
    void (*done)(void *asker, const char *problem);
    void *asker; // NULL: nobody waits any more
    bool is_fine;
    char problem[PROBLEM_LEN];
};

struct moon_certificate_window {
    struct moon_certificate_ops ops;
    struct moon_mailbox *desk, *answers;
    struct moon_list orders;
};

// Connections that what serves now would not let in drain.
static void settle(const struct moon_gateway *gateway)
{
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_worker_settle(gateway->seats[i].worker);
}

// One look at the files. Each address of a listener has them, and upstreams may, too: what they say alike is told once.
struct looking {
    const struct moon_gateway *gateway;
    char told[512]; // last
};

static void tell(void *owner, bool is_fine, const char *text)
{
    struct looking *looking = owner;
    const struct moon_gateway *gateway = looking->gateway;
    if (is_fine)
        settle(gateway);
    if (strncmp(looking->told, text, sizeof looking->told - 1) == 0)
        return;
    snprintf(looking->told, sizeof looking->told, "%s", text);
    if (is_fine)
        moon_log_info(gateway->args.log,
                      "certificates changed: new connections get what is in %s "
                      "and its like now",
                      text);
    else
        moon_log_error(gateway->args.log, "new certificates are refused, the old ones serve: %s",
                       text);
}

static void tell_missing(struct moon_gateway *gateway)
{
    size_t good, missing;
    moon_tls_ocsp_count(gateway->tls, &good, &missing);
    if (missing > gateway->staples_missing_count)
        moon_log_warn(gateway->args.log,
                      "%zu of the certificates have no valid OCSP response to staple", missing);
    gateway->staples_missing_count = missing;
}

static void on_poll(struct moon_timer *timer)
{
    struct moon_gateway *gateway = MOON_CONTAINER(timer, struct moon_gateway, tls_poll);
    struct looking looking = {.gateway = gateway};
    moon_tls_hub_poll(gateway->tls, tell, &looking);
    moon_tls_clients_poll(gateway->tls, tell, &looking);
    moon_staples_ask(gateway);
    tell_missing(gateway);
    if (moon_tls_hub_is_used(gateway->tls))
        moon_loop_timer_add(gateway->control.loop, timer, POLL_MS);
}

void moon_certificates_watch(struct moon_gateway *gateway)
{
    gateway->tls_poll.fn = on_poll;
    if (moon_tls_hub_is_used(gateway->tls) && !moon_timer_is_armed(&gateway->tls_poll))
        moon_loop_timer_add(gateway->control.loop, &gateway->tls_poll, POLL_MS);
    moon_staples_ask(gateway);
}

void moon_certificates_look(struct moon_gateway *gateway)
{
    struct looking looking = {.gateway = gateway};
    moon_tls_hub_poll(gateway->tls, tell, &looking);
}

void moon_certificates_stop(struct moon_gateway *gateway)
{
    if (gateway->control.loop)
        moon_loop_timer_del(gateway->control.loop, &gateway->tls_poll);
    moon_staples_stop(gateway);
}

// ---- certificates that are given

const char *moon_certificates_set(struct moon_gateway *gateway, const struct moon_slice texts[3],
                                  char problem[static PROBLEM_LEN])
{
    struct moon_tls_gift gift = {texts[MOON_CERTIFICATE_NAME], texts[MOON_CERTIFICATE_CERT],
                                 texts[MOON_CERTIFICATE_KEY]};
    struct moon_tls_problem wrong = {.text = ""};
    size_t count;
    int err = moon_tls_hub_set(gateway->tls, &gift, &wrong, &count);
    if (err == -ENOENT)
        snprintf(problem, PROBLEM_LEN, "there is no certificate of the name \"%.*s\"",
                 (int)(gift.name.len < 200 ? gift.name.len : 200), gift.name.ptr);
    else if (err)
        snprintf(problem, PROBLEM_LEN, "%s", wrong.text);
    else
        moon_log_info(gateway->args.log,
                      "certificates changed: new connections get what was given as \"%.*s\"",
                      MOON_SLICE_ARG(gift.name));
    settle(gateway); // files that had changed, CAs among them, were read with it
    if (err)
        moon_log_warn(gateway->args.log, "a certificate that was given is refused: %s", problem);
    return err ? problem : NULL;
}

static void on_order(void *owner, struct moon_message *message)
{
    struct moon_certificate_order *order = (struct moon_certificate_order *)message;
    order->is_fine = !moon_certificates_set(owner, order->texts, order->problem);
    moon_mailbox_post(order->window->answers, &order->message);
}

static void order_free(struct moon_certificate_order *order)
{
    moon_list_del(&order->node);
    explicit_bzero((void *)order->texts[MOON_CERTIFICATE_KEY].ptr,
                   order->texts[MOON_CERTIFICATE_KEY].len);
    free(order);
}

static void on_answer(void *owner, struct moon_message *message)
{
    struct moon_certificate_order *order = (struct moon_certificate_order *)message;
    (void)owner;
    if (order->asker)
        order->done(order->asker, order->is_fine ? NULL : order->problem);
    order_free(order);
}

static struct moon_certificate_order *set(void *owner, const struct moon_slice texts[3],
                                          void (*done)(void *asker, const char *problem),
                                          void *asker)
{
    struct moon_certificate_window *window = owner;
    struct moon_certificate_order *order =
        calloc(1, sizeof *order + texts[0].len + texts[1].len + texts[2].len);
    if (!order)
        abort();
    char *at = (char *)(order + 1);
    for (int i = 0; i < 3; at += texts[i++].len) {
        memcpy(at, texts[i].ptr, texts[i].len);
        order->texts[i] = (struct moon_slice){at, texts[i].len};
    }
    order->window = window;
    order->done = done;
    order->asker = asker;
    moon_list_add_before(&window->orders, &order->node);
    moon_mailbox_post(window->desk, &order->message);
    return order;
}

static void forget(struct moon_certificate_order *order)
{
    order->asker = NULL;
}

struct moon_certificate_window *moon_certificate_window_new(struct moon_loop *loop,
                                                            struct moon_mailbox *desk)
{
    struct moon_certificate_window *window = calloc(1, sizeof *window);
    if (!window)
        abort();
    window->ops = (struct moon_certificate_ops){.set = set, .forget = forget, .owner = window};
    window->desk = desk;
    window->answers = moon_mailbox_new(loop, on_answer, window);
    moon_list_init(&window->orders);
    return window;
}

void moon_certificate_window_free(struct moon_certificate_window *window)
{
    if (!window)
        return;
    while (!moon_list_is_empty(&window->orders))
        order_free(MOON_CONTAINER(window->orders.next, struct moon_certificate_order, node));
    moon_mailbox_free(window->answers);
    free(window);
}

const struct moon_certificate_ops *
moon_certificate_window_ops(const struct moon_certificate_window *window)
{
    return &window->ops;
}

// ---- what serves

struct writing {
    FILE *out;
    const char *comma;
};

static void write_one(void *owner, const struct moon_tls_certificate_facts *facts)
{
    struct writing *at = owner;
    fprintf(at->out, "%s{", at->comma);
    moon_json_member(at->out, "name", facts->name);
    fprintf(at->out, ",\"hostname\":\"%s%s\",\"hosts\":[", facts->hostname[0] == '.' ? "*" : "",
            facts->hostname);
    for (size_t i = 0; i < facts->host_count; i++) {
        fputs(i ? "," : "", at->out);
        moon_json_text(at->out, moon_slice_from(facts->hosts[i]));
    }
    fputs("],", at->out);
    moon_json_member(at->out, "file", facts->path);
    fprintf(at->out, ",\"given\":%s,\"placeholder\":%s,\"expires\":%lld}",
            facts->is_given ? "true" : "false", facts->is_placeholder ? "true" : "false",
            (long long)facts->expires_s);
    at->comma = ",\n";
}

void moon_certificates_write(struct moon_gateway *gateway, FILE *out)
{
    struct writing at = {out, ""};
    fputs("{\"certificates\":[", out);
    moon_tls_hub_each(gateway->tls, write_one, &at);
    fputs("],\n\"renewals\":", out);
    moon_renewals_write_json(gateway->renewals, out);
    fputs("}\n", out);
}

void moon_certificates_init(struct moon_gateway *gateway)
{
    moon_list_init(&gateway->fetches);
    gateway->certificate_orders = moon_mailbox_new(gateway->control.loop, on_order, gateway);
    gateway->certificate_window =
        moon_certificate_window_new(gateway->control.loop, gateway->certificate_orders);
}

void moon_certificates_fini(struct moon_gateway *gateway)
{
    moon_certificate_window_free(gateway->certificate_window);
    moon_mailbox_free(gateway->certificate_orders);
}
