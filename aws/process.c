#include "aws/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/arena.h"
#include "engine/base/mono.h"

#define MOST_WORDS 128

extern char **environ;

/* One word from *at, which moves behind it; NULL at the end. *open: a quote wasn't closed. */
static char *next_word(const char **at, Arena *arena, bool *open)
{
    const char *from = *at + strspn(*at, " \t");
    char *word = arena_alloc(arena, strlen(from) + 1);
    char quote = '\0';
    size_t len = 0;

    if (!*from)
        return NULL;
    for (; *from && (quote || !strchr(" \t", *from)); from++) {
        if (!quote && (*from == '"' || *from == '\''))
            quote = *from;
        else if (quote && *from == quote)
            quote = '\0';
        else if (*from == '\\' && quote != '\'' && from[1])
            word[len++] = *++from;
        else
            word[len++] = *from;
    }
    word[len] = '\0';
    *open = quote != '\0';
    *at = from;
    return word;
}

static bool split(const char *command, Arena *arena, char *words[MOST_WORDS], Err *err)
{
    size_t count = 0;
    bool open = false;
    char *word;

    while ((word = next_word(&command, arena, &open))) {
        if (count == MOST_WORDS - 1)
            return err_fail(err, ERR_CONFIG, "credential_process has more than %d words",
                            MOST_WORDS - 1);
        words[count++] = word;
    }
    words[count] = NULL;
    if (open)
        return err_fail(err, ERR_CONFIG, "credential_process has a quote that isn't closed");
    return count > 0 || err_fail(err, ERR_CONFIG, "credential_process is empty");
}

static bool start(char *words[], pid_t *child, int *from_child, Err *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int ends[2];
    int failed;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, ERR_SYSTEM, "making a pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    sigemptyset(&none); /* ours are blocked for signalfd; the child must not inherit that */
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    failed = posix_spawnp(child, words[0], &actions, &attributes, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    *from_child = ends[0];
    if (failed == 0)
        return true;
    close(ends[0]);
    errno = failed;
    return err_errno(err, ERR_CONFIG, "starting the credential_process %s", words[0]);
}

static int wait_readable(int fd, const Stop *stop, unsigned ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return stop ? stop_poll(stop, fd, POLLIN, (int)ms) : poll(&one, 1, (int)ms);
}

static bool read_all(int fd, uint64_t deadline, const Stop *stop, Buf *out, Err *err)
{
    for (;;) {
        uint64_t now = mono_ms();
        int ready = now < deadline ? wait_readable(fd, stop, (unsigned)(deadline - now)) : 0;
        uint8_t *room;
        ssize_t got;

        if (ready < 0 && stop && stop_requested(stop))
            return stop_fail(err, "waiting for the credential_process");
        if (ready == 0)
            return err_fail(err, ERR_AWS, "the credential_process didn't end in time");
        room = buf_reserve(out, 4096);
        if (!room)
            return err_fail(err, ERR_AWS, "the credential_process prints more than %zu bytes",
                            out->most);
        got = read(fd, room, 4096);
        if (got < 0 && errno != EINTR)
            return err_errno(err, ERR_SYSTEM, "reading from the credential_process");
        if (got == 0)
            return true;
        if (got > 0)
            out->len += (size_t)got;
    }
}

bool process_read(const char *command, unsigned timeout_ms, const Stop *stop, Buf *out, Err *err)
{
    char *words[MOST_WORDS];
    Arena arena;
    pid_t child = 0;
    int fd = -1;
    int status = 0;
    bool ok;

    arena_init(&arena, 1024);
    ok = split(command, &arena, words, err) && start(words, &child, &fd, err);
    if (ok) {
        ok = read_all(fd, mono_ms() + timeout_ms, stop, out, err);
        close(fd);
        if (!ok)
            kill(child, SIGKILL);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (ok && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
            ok = err_fail(err, ERR_AWS, "the credential_process %s failed with %s %d", words[0],
                          WIFEXITED(status) ? "status" : "signal",
                          WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
    arena_fini(&arena);
    return ok;
}
