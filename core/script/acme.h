// The client of ACME: Lua of the product (lua/moongate/control/acme.lua) in a VM of its own on the control thread, which lives as
// long as the gateway: a reload in the middle of an order changes nothing about it.
//
//   new -> start (control's loop) -> configure, again with every configuration -> free
//
// Weighed: a state machine in C. The protocol is JSON, waiting and retries, which Lua says in a third of the lines; what needs
// OpenSSL is io/acme_crypto.h. And the control VM of the user's script: it is there only where a script runs something, and ends with
// every new generation.
#pragma once

#include <stddef.h>

struct moon_acme;
struct moon_renewals;
struct moon_report;
struct moon_script_host;
struct moon_tls_hub;
struct moon_vm_seat;

// One certificate that is wanted; all are borrowed. NULL where it says so.
struct moon_acme_job {
    const char *host, *path;          // of its file
    const char *account;              // path of the account's key
    const char *directory;            // URL
    const char *email, *ca;           // NULL: none
    const char *challenge;            // "http-01", "tls-alpn-01"; NULL: either
    const char *eab_kid, *eab_secret; // NULL: none
};

struct moon_acme_args {
    const struct moon_script_host *host;
    struct moon_tls_hub *tls;
    struct moon_renewals *renewals;
    void (*on_written)(void *owner); // a certificate's file is new; never under configure
    void *owner;
};

// Its parts outlive it. 0, or MOON_ECONFIG with the report filled.
int moon_acme_new(const struct moon_acme_args *args, struct moon_report *report,
                  struct moon_acme **out);
// On its thread, as all below. NULL is fine: what is under way is dropped; before the service that the seat named ends.
void moon_acme_free(struct moon_acme *acme);
void moon_acme_start(struct moon_acme *acme, const struct moon_vm_seat *seat);
// Wants these from now on, and no others.
void moon_acme_configure(struct moon_acme *acme, const struct moon_acme_job *jobs, size_t count);
