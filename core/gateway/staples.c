// See staples.h.
#include "gateway/staples.h"

#include "base/err.h"
#include "exchange/call.h"
#include "gateway/gateway_priv.h"
#include "io/tls.h"
#include "obs/log.h"

#include <stdlib.h>

enum { ASKING_MAX_COUNT = 8, TIMEOUT_MS = 10000, RESPONSE_MAX_LEN = 65536, STATUS_OK = 200 };

struct fetch {
    struct moon_list node; // in gateway->fetches
    struct moon_gateway *gateway;
    struct moon_tls_question question;
    struct moon_call *call;
    bool is_over; // the gateway ends
};

static void end(struct fetch *fetch, struct moon_slice der, const char *why)
{
    struct moon_gateway *gateway = fetch->gateway;
    const char *name = fetch->question.name, *url = fetch->question.url;
    const char *problem = why ? why : "";
    char text[400];
    snprintf(text, sizeof text, "%s: the OCSP responder %s: ", name, url);
    const char *judged = moon_tls_ocsp_answer(&fetch->question, der);
    if (!judged) {
        gateway->ocsp_fine_count++;
        moon_log_debug(gateway->args.log, "%sits response serves", text);
    } else {
        gateway->ocsp_failed_count += !fetch->is_over;
    }
    if (judged && !fetch->is_over) {
        moon_log_warn(gateway->args.log, "%s%s%s", text, why ? "" : "what it says ",
                      why ? problem : judged);
    }
    moon_list_del(&fetch->node);
    gateway->fetch_count--;
    moon_call_free(fetch->call);
    free(fetch);
}

static void on_done(void *owner, struct moon_call *call)
{
    struct fetch *fetch = owner;
    static const struct moon_slice none = {NULL, 0};
    char why[64];
    int err = moon_call_error(call);
    fetch->is_over = err == MOON_ECANCELED;
    if (err) {
        end(fetch, none, moon_err_text(err));
    } else if (moon_call_status(call) != STATUS_OK) {
        snprintf(why, sizeof why, "it answers %u", moon_call_status(call));
        end(fetch, none, why);
    } else {
        struct moon_slice body = moon_call_body(call);
        end(fetch, body.ptr ? body : MOON_SLICE(""), NULL);
    }
}

static void start(struct moon_gateway *gateway, const struct moon_tls_question *question)
{
    static const struct moon_call_field type = {MOON_SLICE("Content-Type"),
                                                MOON_SLICE("application/ocsp-request")};
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch)
        abort();
    fetch->gateway = gateway;
    fetch->question = *question;
    moon_list_add_before(&gateway->fetches, &fetch->node);
    gateway->fetch_count++;
    struct moon_call_args args = {.method = MOON_SLICE("POST"),
                                  .url = moon_slice_from(question->url),
                                  .fields = &type,
                                  .field_count = 1,
                                  .body = question->request,
                                  .timeout_ms = TIMEOUT_MS,
                                  .body_max_len = RESPONSE_MAX_LEN,
                                  .done = on_done,
                                  .owner = fetch};
    int err = moon_call_start(moon_worker_service(gateway->control.worker), &args, &fetch->call);
    fetch->is_over = err == MOON_ECANCELED;
    if (err)
        end(fetch, (struct moon_slice){NULL, 0}, moon_err_text(err));
}

void moon_staples_ask(struct moon_gateway *gateway)
{
    struct moon_tls_question question;
    if (!gateway->control.worker) // nobody to send it
        return;
    while (gateway->fetch_count < ASKING_MAX_COUNT && moon_tls_ocsp_next(gateway->tls, &question))
        start(gateway, &question);
}

void moon_staples_stop(struct moon_gateway *gateway)
{
    while (gateway->fetches.next && !moon_list_is_empty(&gateway->fetches)) {
        struct fetch *fetch = MOON_CONTAINER(gateway->fetches.next, struct fetch, node);
        moon_tls_ocsp_answer(&fetch->question, (struct moon_slice){NULL, 0});
        moon_list_del(&fetch->node);
        moon_call_free(fetch->call);
        free(fetch);
    }
}
