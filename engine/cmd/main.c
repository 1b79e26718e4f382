/* The process: options, signals, logging, libraries, the report of an error, the exit code. */
#include <curl/curl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "appliers/postgres/pg.h"
#include "engine/base/log.h"
#include "engine/cmd/cmd.h"

#ifndef KB_VERSION
#define KB_VERSION "unknown"
#endif

/* Connection strings and passwords are in this memory. Test builds stay open to debuggers and leak
 * checkers. */
static void keep_secrets_in(void)
{
#ifndef KB_TEST_HOOKS
    struct rlimit none = {0, 0};

    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &none);
#endif
}

typedef struct Signals {
    int fd;
    Stop *stop;
} Signals;

static void *watch_signals(void *arg)
{
    Signals *signals = arg;
    struct signalfd_siginfo info;
    int count = 0;

    log_thread("signals");
    while (read(signals->fd, &info, sizeof(info)) == sizeof(info)) {
        if (count++ > 0)
            _exit(128 + (int)info.ssi_signo);
        log_info("stopping", F_STR("signal", sigabbrev_np((int)info.ssi_signo)));
        stop_request(signals->stop);
    }
    return NULL;
}

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Before any thread exists, so that all of them inherit the mask and only the watcher sees signals.
 */
static bool handle_signals(Signals *signals, Err *err)
{
    sigset_t set;
    pthread_t thread;
    int failed;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (!is_ignored(SIGHUP)) /* nohup */
        sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signals->fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (signals->fd < 0)
        return err_errno(err, ERR_SYSTEM, "creating a signalfd");
    failed = pthread_create(&thread, NULL, watch_signals, signals);
    if (failed)
        return err_fail(err, ERR_SYSTEM, "starting the signal thread: %s", strerrordesc_np(failed));
    pthread_detach(thread);
    return true;
}

static LogLevel log_level_of(const char *name)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return (LogLevel)i;
    return LOG_LEVEL_INFO;
}

static LogFormat log_format_of(const char *name)
{
    static const char *const names[] = {"auto", "text", "logfmt", "json"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return (LogFormat)i;
    return LOG_FORMAT_AUTO;
}

/* A server's message may have several lines; a report has one. */
static void one_line(char *text)
{
    char *to = text;

    for (const char *at = text; *at;) {
        size_t blanks = strspn(at, " \t\r\n");
        bool broken = memchr(at, '\n', blanks) != NULL;

        at += blanks;
        if (broken) {
            if (*at)
                *to++ = ' ';
        } else {
            memmove(to, at - blanks, blanks);
            to += blanks;
        }
        if (*at)
            *to++ = *at++;
    }
    *to = '\0';
}

static void report_json(const char *name, const Err *err)
{
    AUTO_BUF out;

    buf_init(&out, 16 * 1024);
    buf_puts(&out, "{\"error\":{\"command\":");
    buf_put_json(&out, span_str(name));
    buf_puts(&out, ",\"kind\":");
    buf_put_json(&out, span_str(err_kind_name(err->kind)));
    buf_puts(&out, ",\"code\":");
    buf_put_json(&out, span_str(err->code));
    buf_puts(&out, ",\"text\":");
    buf_put_json(&out, span_str(err->text));
    buf_puts(&out, ",\"hint\":");
    buf_put_json(&out, span_str(err->hint));
    buf_printf(&out, ",\"exit\":%d}}\n", err_exit_code(err->kind));
    fputs(buf_str(&out), stdout);
}

static int report(const char *name, bool json, Err *err)
{
    log_progress(NULL);
    if (!err_is_set(err))
        err_fail(err, ERR_BUG, "the command failed without saying why");
    one_line(err->text);
    one_line(err->hint);
    fprintf(stderr, "keybridge%s%s: %s\n", name ? " " : "", name ? name : "", err->text);
    if (err->hint[0])
        fprintf(stderr, "  hint: %s\n", err->hint);
    if (json && err->kind != ERR_DIFFERENT) /* then the result is on stdout and says so */
        report_json(name ? name : "", err);
    return err_exit_code(err->kind);
}

static bool asks_for_json(char *const *argv)
{
    for (; *argv; argv++)
        if (strcmp(*argv, "--json") == 0)
            return true;
    return false;
}

static bool prepare(const Conf *conf, Signals *signals, Err *err)
{
    log_setup(log_level_of(conf->log_level), log_format_of(conf->log_format));
    for (size_t i = 0; conf_warning(conf, i); i++)
        log_warn("odd configuration", F_STR("what", conf_warning(conf, i)));
    if (!stop_init(signals->stop, err) || !handle_signals(signals, err))
        return false;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return err_fail(err, ERR_SYSTEM, "starting libcurl failed");
    pg_tls_setup(conf->tls_ca, conf->tls_insecure);
    return true;
}

/* A full disk or a closed pipe must not look like success. */
static bool flush_results(Err *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return err_errno(err, ERR_SYSTEM, "writing the results to standard output");
    return true;
}

static int run(const CommandLine *line, const Conf *conf)
{
    static Stop stop; /* the signal thread outlives this function */
    static Signals signals = {.stop = &stop};
    Err err = ERR_INIT;

    if (prepare(conf, &signals, &err) &&
        line->command->run(conf, &stop, line->argc, line->argv, &err) && flush_results(&err)) {
        log_progress(NULL);
        return 0;
    }
    return report(line->command->name, conf->json, &err);
}

int main(int argc, char **argv, char **env)
{
    CommandLine line;
    Conf conf;
    Err err = ERR_INIT;
    int code = 0;
    bool json = asks_for_json(argv);

    keep_secrets_in();
    setlocale(LC_CTYPE, ""); /* only for tables on a terminal: numbers and times stay C */
    conf_init(&conf);
    if (!command_line_read(&line, &conf, argc, argv, env, &err))
        code = report(line.command ? line.command->name : NULL, json || conf.json, &err);
    else if (line.version)
        puts("keybridge " KB_VERSION);
    else if (line.help)
        help_print(stdout, line.command);
    else
        code = run(&line, &conf);
    free(line.argv);
    conf_fini(&conf);
    if (fflush(stdout) != 0 && code == 0)
        code = err_exit_code(ERR_SYSTEM);
    return code;
}
