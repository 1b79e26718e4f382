#include "engine/move/switch.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static bool settle_at_once(Switch *self, Err *err)
{
    (void)self;
    (void)err;
    return true;
}

static void free_plain(Switch *self)
{
    free(self);
}

/* none -------------------------------------------------------------------------------------------
 */

static bool none_check(Switch *self, const SwitchEnds *ends, const char **about, Err *err)
{
    (void)self;
    (void)ends;
    (void)err;
    *about = "nothing is switched: move the clients by hand when told";
    return true;
}

static bool none_move(Switch *self, const SwitchEnds *ends, Err *err)
{
    (void)self;
    (void)ends;
    (void)err;
    return true;
}

static const SwitchOps none_ops = {"none", none_check, none_move, settle_at_once, free_plain};

Switch *switch_none(void)
{
    Switch *self = calloc(1, sizeof(*self));

    if (!self)
        abort();
    self->ops = &none_ops;
    return self;
}

/* command -----------------------------------------------------------------------------------------
 */

typedef struct CommandSwitch {
    Switch base;
    const char *command;
    const Stop *stop;
} CommandSwitch;

static bool command_check(Switch *self, const SwitchEnds *ends, const char **about, Err *err)
{
    (void)self;
    (void)ends;
    (void)err;
    *about = "a command is run at the switch";
    return true;
}

/* What the operator gave us in our environment is not the command's business. */
static bool is_secret(const char *pair)
{
    static const char *const secrets[] = {
        "KEYBRIDGE_SOURCE=", "KEYBRIDGE_TARGET=", "KEYBRIDGE_DB_PASSWORD=", "PGPASSWORD="};

    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        if (strncmp(pair, secrets[i], strlen(secrets[i])) == 0)
            return true;
    return false;
}

static char **environment_of(Arena *arena, const SwitchEnds *ends)
{
    size_t count = 0;
    size_t at = 0;
    char **env;

    while (environ[count])
        count++;
    env = arena_array(arena, char *, count + 5);
    for (size_t i = 0; i < count; i++)
        if (!is_secret(environ[i]))
            env[at++] = environ[i];
    env[at++] = arena_printf(arena, "KEYBRIDGE_OLD_HOST=%s", ends->old_host ? ends->old_host : "");
    env[at++] = arena_printf(arena, "KEYBRIDGE_OLD_PORT=%u", ends->old_port);
    env[at++] = arena_printf(arena, "KEYBRIDGE_NEW_HOST=%s", ends->new_host ? ends->new_host : "");
    env[at++] = arena_printf(arena, "KEYBRIDGE_NEW_PORT=%u", ends->new_port);
    return env;
}

static void reset_arena(Arena *arena)
{
    arena_fini(arena);
}

/* posix_spawn, because other threads run and a forked child may do next to nothing. Our signals are
 * blocked (a thread reads them), the command's must not be. */
static bool start(const char *command, char **env, pid_t *child, Err *err)
{
    char sh[] = "sh";
    char dash_c[] = "-c";
    char *argv[] = {sh, dash_c, (char *)(uintptr_t)command, NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    int failed;

    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    failed = posix_spawn(child, "/bin/sh", NULL, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    return !failed ||
           err_fail(err, ERR_SYSTEM, "starting the command: %s", strerrordesc_np(failed));
}

static bool command_move(Switch *self, const SwitchEnds *ends, Err *err)
{
    CommandSwitch *sw = (CommandSwitch *)self;
    Arena arena ON_EXIT(reset_arena);
    int status = 0;
    pid_t child;

    arena_init(&arena, 4096);
    if (!start(sw->command, environment_of(&arena, ends), &child, err))
        return false;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    err_fail(err, ERR_SYSTEM, "the command ended with %s %d",
             WIFSIGNALED(status) ? "signal" : "exit code",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return err_hint(err, "mend it and run again: the new side is open, the old side is fenced");
}

static const SwitchOps command_ops = {"command", command_check, command_move, settle_at_once,
                                      free_plain};

Switch *switch_command(const char *command, const Stop *stop)
{
    CommandSwitch *self = calloc(1, sizeof(*self));

    if (!self)
        abort();
    self->base.ops = &command_ops;
    self->command = command;
    self->stop = stop;
    return &self->base;
}
