// See acme.h. What its Lua calls is the table `moongate._core.native.acme`; upvalue 1 of each function is the client.
#include "script/acme.h"

#include "base/err.h"
#include "io/acme_crypto.h"
#include "io/tls.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/renewals.h"
#include "script/code.h"
#include "script/generation.h"
#include "script/inputs.h"
#include "script/vm_priv.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_LEN = 1 << 20 };

static const char module[] = "moongate.control.acme";
static const char source[] = "require 'moongate.control.acme'";

struct moon_acme {
    struct moon_acme_args args;
    struct moon_code *code;
    struct moon_vm *vm;
};

static struct moon_acme *acme_of(lua_State *state)
{
    return lua_touserdata(state, lua_upvalueindex(1));
}

static struct moon_slice string_at(lua_State *state, int index)
{
    struct moon_slice text;
    text.ptr = luaL_checklstring(state, index, &text.len);
    return text;
}

// Takes the text.
static int push_text(lua_State *state, char *text)
{
    lua_pushstring(state, text);
    free(text);
    return 1;
}

static int push_error(lua_State *state, const char *why)
{
    lua_pushnil(state);
    lua_pushstring(state, why);
    return 2;
}

// ---- texts

// base64(bytes)
static int native_base64(lua_State *state)
{
    return push_text(state, moon_acme_base64(string_at(state, 1)));
}

// digest(bytes): SHA-256
static int native_digest(lua_State *state)
{
    char out[MOON_ACME_NUMBER_LEN + 1];
    moon_acme_digest(string_at(state, 1), out);
    lua_pushstring(state, out);
    return 1;
}

// hmac(key, bytes): key in base64url; nil: it is none
static int native_hmac(lua_State *state)
{
    char out[MOON_ACME_NUMBER_LEN + 1], *key;
    size_t len;
    struct moon_slice bytes = string_at(state, 2);
    if (!moon_acme_unbase64(string_at(state, 1), &key, &len)) {
        lua_pushnil(state);
        return 1;
    }
    moon_acme_hmac((struct moon_slice){key, len}, bytes, out);
    free(key);
    lua_pushstring(state, out);
    return 1;
}

// ---- keys and certificates

// key_new(): PEM
static int native_key_new(lua_State *state)
{
    return push_text(state, moon_acme_key_new());
}

// key_public(pem): x, y; nil: it holds no such key
static int native_key_public(lua_State *state)
{
    char x[MOON_ACME_NUMBER_LEN + 1], y[MOON_ACME_NUMBER_LEN + 1];
    if (!moon_acme_key_public(string_at(state, 1), x, y)) {
        lua_pushnil(state);
        return 1;
    }
    lua_pushstring(state, x);
    lua_pushstring(state, y);
    return 2;
}

// sign(pem, bytes)
static int native_sign(lua_State *state)
{
    char out[MOON_ACME_SIGNATURE_LEN + 1];
    struct moon_slice bytes = string_at(state, 2);
    if (!moon_acme_sign(string_at(state, 1), bytes, out))
        return luaL_error(state, "not a key on P-256");
    lua_pushstring(state, out);
    return 1;
}

// request(pem, host): a request for a certificate
static int native_request(lua_State *state)
{
    struct moon_slice host = string_at(state, 2);
    char *text = moon_acme_request_new(string_at(state, 1), host);
    return text ? push_text(state, text) : push_error(state, "no request can be made");
}

// inspect(pem, host): when it begins and ends, seconds since 1970; or nil, why
static int native_inspect(lua_State *state)
{
    struct moon_acme_validity validity;
    struct moon_slice host = string_at(state, 2);
    const char *wrong = moon_acme_inspect(string_at(state, 1), host, &validity);
    if (wrong)
        return push_error(state, wrong);
    lua_pushnumber(state, (lua_Number)validity.not_before_s);
    lua_pushnumber(state, (lua_Number)validity.not_after_s);
    return 2;
}

// ---- challenges

// challenge(host, token, answer): whether it is answered now
static int native_challenge(lua_State *state)
{
    const char *host = luaL_checkstring(state, 1), *token = luaL_checkstring(state, 2),
               *answer = luaL_checkstring(state, 3);
    lua_pushboolean(state,
                    strlen(answer) < MOON_TLS_CHALLENGE_LEN &&
                        moon_tls_challenge_add(acme_of(state)->args.tls, host, token, answer));
    return 1;
}

// unchallenge(token)
static int native_unchallenge(lua_State *state)
{
    moon_tls_challenge_del(acme_of(state)->args.tls, luaL_checkstring(state, 1));
    return 0;
}

// ---- files

// read(path): its text; or nil, why, whether it is not there
static int native_read(lua_State *state)
{
    char *text;
    size_t len;
    int err = moon_world_read_file(acme_of(state)->args.host->world, luaL_checkstring(state, 1),
                                   FILE_MAX_LEN, &text, &len);
    if (err) {
        push_error(state, moon_err_text(err));
        lua_pushboolean(state, err == -ENOENT);
        return 3;
    }
    lua_pushlstring(state, text, len);
    explicit_bzero(text, len); // a key, for the most part
    free(text);
    return 1;
}

// Directories as far as they are missing.
static int make_place(struct moon_world *world, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return 0;
    char *directory = strndup(path, (size_t)(slash - path));
    if (!directory)
        abort();
    int err = moon_world_make_directory(world, directory);
    free(directory);
    return err;
}

// written(): the certificate's file is to be looked at
static int native_written(lua_State *state)
{
    struct moon_acme *acme = acme_of(state);
    acme->args.on_written(acme->args.owner);
    return 0;
}

// write(path, text): true; or nil, why
static int native_write(lua_State *state)
{
    struct moon_world *world = acme_of(state)->args.host->world;
    const char *path = luaL_checkstring(state, 1);
    struct moon_slice text = string_at(state, 2);
    int err = make_place(world, path);
    if (!err)
        err = moon_world_write_file(world, path, text);
    if (err)
        return push_error(state, moon_err_text(err));
    lua_pushboolean(state, true);
    return 1;
}

// ---- what has become of it

static int64_t seconds_of(lua_State *state, const char *name)
{
    lua_getfield(state, 1, name);
    lua_Number value = lua_tonumber(state, -1);
    lua_pop(state, 1);
    return value > 0 && value < 1e15 ? (int64_t)value : 0;
}

// The table keeps it.
static const char *text_of(lua_State *state, const char *name)
{
    lua_getfield(state, 1, name);
    const char *text = lua_tostring(state, -1);
    lua_pop(state, 1);
    return text ? text : "";
}

// tell { path, host, error, expires, next, obtained, failures }
static int native_tell(lua_State *state)
{
    luaL_checktype(state, 1, LUA_TTABLE);
    struct moon_renewal renewal = {.path = text_of(state, "path"),
                                   .host = text_of(state, "host"),
                                   .error = text_of(state, "error"),
                                   .expires_s = seconds_of(state, "expires"),
                                   .next_s = seconds_of(state, "next"),
                                   .obtained_total = (uint64_t)seconds_of(state, "obtained"),
                                   .failures_total = (uint64_t)seconds_of(state, "failures")};
    moon_renewals_set(acme_of(state)->args.renewals, &renewal);
    return 0;
}

// forget(path)
static int native_forget(lua_State *state)
{
    moon_renewals_del(acme_of(state)->args.renewals, luaL_checkstring(state, 1));
    return 0;
}

// ---- life

static void open_natives(struct moon_acme *acme)
{
    static const luaL_Reg functions[] = {{"base64", native_base64},
                                         {"digest", native_digest},
                                         {"hmac", native_hmac},
                                         {"key_new", native_key_new},
                                         {"key_public", native_key_public},
                                         {"sign", native_sign},
                                         {"request", native_request},
                                         {"inspect", native_inspect},
                                         {"challenge", native_challenge},
                                         {"unchallenge", native_unchallenge},
                                         {"read", native_read},
                                         {"write", native_write},
                                         {"tell", native_tell},
                                         {"forget", native_forget},
                                         {"written", native_written},
                                         {NULL, NULL}};
    lua_State *state = acme->vm->state;
    lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(state, -1, "moongate._core.native");
    lua_newtable(state);
    for (const luaL_Reg *function = functions; function->name; function++) {
        lua_pushlightuserdata(state, acme);
        lua_pushcclosure(state, function->func, 1);
        lua_setfield(state, -2, function->name);
    }
    lua_setfield(state, -2, "acme");
    lua_settop(state, 0);
}

int moon_acme_new(const struct moon_acme_args *args, struct moon_report *report,
                  struct moon_acme **out)
{
    struct moon_inputs *inputs = moon_inputs_new(args->host->world);
    struct moon_acme *acme = calloc(1, sizeof *acme);
    if (!acme)
        abort();
    acme->args = *args;
    moon_inputs_put_file(inputs, module, MOON_SLICE(source));
    acme->code = moon_code_new(module, inputs, NULL);
    struct moon_vm_args vm = {args->host, acme->code, args->host->worker_count, true};
    int err = moon_vm_new(&vm, report, &acme->vm);
    if (err) {
        moon_acme_free(acme);
        return err;
    }
    open_natives(acme);
    *out = acme;
    return 0;
}

void moon_acme_free(struct moon_acme *acme)
{
    if (!acme)
        return;
    moon_vm_free(acme->vm);
    moon_code_unref(acme->code);
    free(acme);
}

static void started(void *owner, int err)
{
    (void)owner;
    (void)err; // nothing runs at its start
}

void moon_acme_start(struct moon_acme *acme, const struct moon_vm_seat *seat)
{
    moon_vm_start(acme->vm, seat, started, acme);
}

// ---- what is wanted

static void set(lua_State *state, const char *name, const char *value)
{
    lua_pushstring(state, value); // nil for NULL
    lua_setfield(state, -2, name);
}

static void push_job(lua_State *state, const struct moon_acme_job *job)
{
    lua_newtable(state);
    set(state, "host", job->host);
    set(state, "path", job->path);
    set(state, "account", job->account);
    set(state, "directory", job->directory);
    set(state, "email", job->email);
    set(state, "ca", job->ca);
    set(state, "challenge", job->challenge);
    set(state, "eab_kid", job->eab_kid);
    set(state, "eab_secret", job->eab_secret);
}

void moon_acme_configure(struct moon_acme *acme, const struct moon_acme_job *jobs, size_t count)
{
    lua_State *state = acme->vm->state;
    lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(state, -1, module);
    lua_getfield(state, -1, "configure");
    lua_createtable(state, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        push_job(state, &jobs[i]);
        lua_rawseti(state, -2, (int)i + 1);
    }
    if (lua_pcall(state, 1, 0, 0) != 0)
        moon_log_error(acme->args.host->log, "acme: %s", lua_tostring(state, -1));
    lua_settop(state, 0);
}
