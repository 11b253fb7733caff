// Reads the `acme` of a listener's tls: which certificates are obtained, from whom, and where they are kept.
//
//   <storage>/<the directory's URL as a name>/account.key     the key of the account
//                                            /<host>.pem      key and chain of a host, in one file so that they change as one
#pragma once

#include "conf/schema.h"

#include <stddef.h>

struct moon_object;

extern const struct moon_schema moon_listener_acme_schema;

struct moon_acme_terms {
    char *directory;            // URL
    char *email;                // NULL: none
    char *ca;                   // path of who vouches for the directory; NULL: the system's
    char *storage;              // directory of this CA's files
    char *eab_kid, *eab_secret; // external account binding; NULL: none
    const char *challenge;      // "http-01", "tls-alpn-01"; NULL: either
    char **hosts;               // lower case
    size_t host_count;
};

struct moon_acme_problem {
    char path[32]; // of the key: "hosts[2]"
    char text[320];
    const char *hint; // static; NULL: none
};

// `listener` is one whose tls has `acme`. False with the problem, if it is wanted, and nothing to be freed.
bool moon_acme_terms_read(const struct moon_object *listener, struct moon_acme_terms *out,
                          struct moon_acme_problem *problem);
void moon_acme_terms_fini(struct moon_acme_terms *terms);
// Where the certificate of a host is kept; malloc'd.
char *moon_acme_terms_path(const struct moon_acme_terms *terms, const char *host);
// The value, or NULL: the listener obtains none.
const struct moon_value *moon_listener_acme(const struct moon_object *listener);
