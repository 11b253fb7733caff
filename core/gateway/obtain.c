// See obtain.h.
#include "gateway/obtain.h"

#include "conf/conf.h"
#include "gateway/certificates.h"
#include "gateway/gateway_priv.h"
#include "obs/log.h"
#include "route/listener_acme.h"
#include "script/acme.h"
#include "script/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The jobs with what they borrow from.
struct wanted {
    struct moon_acme_job *jobs;
    size_t count;
    struct moon_acme_terms *terms; // of each listener
    char **accounts;
    size_t terms_count;
};

static void *grow(void *list, size_t count, size_t len)
{
    void *more = realloc(list, (count + 1) * len);
    if (!more)
        abort();
    return more;
}

static bool is_wanted(const struct wanted *wanted, const char *path)
{
    for (size_t i = 0; i < wanted->count; i++)
        if (strcmp(wanted->jobs[i].path, path) == 0)
            return true;
    return false;
}

// Listeners that name one host at one CA share its certificate.
static void add_job(struct wanted *wanted, const struct moon_acme_terms *terms, const char *account,
                    const char *host)
{
    char *path = moon_acme_terms_path(terms, host);
    if (is_wanted(wanted, path)) {
        free(path);
        return;
    }
    wanted->jobs = grow(wanted->jobs, wanted->count, sizeof *wanted->jobs);
    wanted->jobs[wanted->count++] = (struct moon_acme_job){.host = host,
                                                           .path = path,
                                                           .account = account,
                                                           .directory = terms->directory,
                                                           .email = terms->email,
                                                           .ca = terms->ca,
                                                           .challenge = terms->challenge,
                                                           .eab_kid = terms->eab_kid,
                                                           .eab_secret = terms->eab_secret};
}

static void add_listener(struct wanted *wanted, const struct moon_object *listener)
{
    struct moon_acme_terms terms;
    char *account;
    if (!moon_acme_terms_read(listener, &terms, NULL)) // compiling has checked it
        return;
    if (asprintf(&account, "%s/account.key", terms.storage) < 0)
        abort();
    wanted->terms = grow(wanted->terms, wanted->terms_count, sizeof *wanted->terms);
    wanted->accounts =
        grow((void *)wanted->accounts, wanted->terms_count, sizeof *wanted->accounts);
    wanted->terms[wanted->terms_count] = terms;
    wanted->accounts[wanted->terms_count++] = account;
    for (size_t i = 0; i < terms.host_count; i++)
        add_job(wanted, &terms, account, terms.hosts[i]);
}

static struct wanted collect(const struct moon_model *model)
{
    struct wanted wanted = {0};
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        if (strcmp(object->kind, "listener") == 0 && moon_listener_acme(object))
            add_listener(&wanted, object);
    }
    return wanted;
}

static void wanted_fini(struct wanted *wanted)
{
    for (size_t i = 0; i < wanted->count; i++)
        free((void *)wanted->jobs[i].path);
    for (size_t i = 0; i < wanted->terms_count; i++) {
        moon_acme_terms_fini(&wanted->terms[i]);
        free(wanted->accounts[i]);
    }
    free(wanted->jobs);
    free(wanted->terms);
    free((void *)wanted->accounts);
}

// ---- who obtains them

static void fail(const struct moon_gateway *gateway, const struct moon_report *report)
{
    char *text = moon_report_text(report);
    moon_log_error(gateway->args.log, "no certificates can be obtained: %s", text);
    free(text);
}

static void on_written(void *owner)
{
    moon_certificates_look(owner);
}

static void begin(struct moon_gateway *gateway)
{
    struct moon_report *report = moon_report_new();
    struct moon_worker *worker = gateway->control.worker;
    struct moon_vm_seat seat = {.loop = gateway->control.loop,
                                .service = worker ? moon_worker_service(worker) : NULL,
                                .log = gateway->args.log,
                                .worker = gateway->seat_count,
                                .is_control = true};
    struct moon_acme_args args = {.host = &gateway->scripts,
                                  .tls = gateway->tls,
                                  .renewals = gateway->renewals,
                                  .on_written = on_written,
                                  .owner = gateway};
    if (moon_acme_new(&args, report, &gateway->acme))
        fail(gateway, report);
    else
        moon_acme_start(gateway->acme, &seat);
    moon_report_free(report);
}

void moon_obtain_use(struct moon_gateway *gateway)
{
    struct wanted wanted = collect(moon_snapshot_model(gateway->snapshot));
    if (wanted.count && !gateway->acme)
        begin(gateway);
    if (gateway->acme)
        moon_acme_configure(gateway->acme, wanted.jobs, wanted.count);
    wanted_fini(&wanted);
}

void moon_obtain_stop(struct moon_gateway *gateway)
{
    moon_acme_free(gateway->acme);
    gateway->acme = NULL;
}
