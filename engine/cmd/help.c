#include "engine/cmd/cmd.h"

#define WIDTH  100
#define COLUMN 30

static const char *const placeholders[] = {
    [CONF_TEXT] = "TEXT", [CONF_SECRET] = "TEXT", [CONF_CHOICE] = NULL, [CONF_COUNT] = "N",
    [CONF_SIZE] = "SIZE", [CONF_MS] = "TIME",     [CONF_BOOL] = NULL,
};

void help_put_flag(Buf *out, const ConfOption *option)
{
    buf_printf(out, "--%s", option->flag);
    if (option->kind == CONF_CHOICE)
        buf_printf(out, " %.*s", (int)strcspn(option->help, "."), option->help);
    else if (placeholders[option->kind])
        buf_printf(out, " %s", placeholders[option->kind]);
}

/* Words of text from column `indent` on, which is where the cursor is. */
static void wrap(FILE *out, const char *text, int indent)
{
    int at = indent;

    while (*text) {
        int len = (int)strcspn(text, " \n");

        if (at > indent && at + 1 + len > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", len, text);
        at += len;
        text += len;
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        }
        text += *text != '\0';
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const ConfOption *option)
{
    const char *help = option->help;
    AUTO_BUF flag;
    AUTO_BUF text;

    buf_init(&flag, 512);
    buf_init(&text, 4096);
    help_put_flag(&flag, option);
    if (option->kind == CONF_CHOICE) {
        help += strcspn(help, ".");
        help += strspn(help, ". ");
    }
    buf_puts(&text, help);
    if (option->standard && option->kind != CONF_BOOL)
        buf_printf(&text, " [%s]", option->standard);
    fprintf(out, "  %-*s", COLUMN - 2, buf_str(&flag));
    if (flag.len > COLUMN - 3)
        fprintf(out, "\n%*s", COLUMN, "");
    wrap(out, buf_str(&text), COLUMN);
}

static void print_program(FILE *out)
{
    fputs("keybridge moves a live database to another KMS key with near-zero downtime.\n\n"
          "usage: keybridge COMMAND [OPTIONS]\n\n",
          out);
    for (size_t i = 0; i < command_count(); i++)
        fprintf(out, "  %-12s %s\n", command_at(i)->name, command_at(i)->summary);
    fputs(
        "  help         what a command does and which options it takes\n\n"
        "  --config FILE   read options from FILE; ./keybridge.ini or ~/.config/keybridge.ini when there is one\n"
        "  --help          this, or the help of the command\n"
        "  --version       print the version\n\n"
        "Every option is also an environment variable and a line of the ini file: flag > environment > file\n"
        "> default. `keybridge config` shows what is in force and where it comes from.\n\n"
        "exit codes: 0 done, 1 differences found, 2 usage or configuration, 3 not in time and undone,\n"
        "4 source, 5 target, 6 AWS, 7 an operator must decide, 70 a bug in keybridge, 71 this machine,\n"
        "130 stopped\n",
        out);
}

static void print_examples(FILE *out, const char *examples)
{
    fputs("\nexamples:\n", out);
    while (*examples) {
        size_t len = strcspn(examples, "\n");

        fprintf(out, "%s%.*s\n", *examples == ' ' ? "" : "  ", (int)len, examples);
        examples += len + (examples[len] == '\n');
    }
}

static void print_command(FILE *out, const Command *command)
{
    fprintf(out, "keybridge %s: %s\n\nusage: keybridge %s [OPTIONS]%s%s\n", command->name,
            command->summary, command->name, command->operands ? " " : "",
            command->operands ? command->operands : "");
    if (command->about) {
        fputc('\n', out);
        wrap(out, command->about, 0);
    }
    fputs("\noptions:\n", out);
    for (size_t i = 0; i < conf_count(); i++)
        if (command_takes(command, conf_option(i)))
            print_option(out, conf_option(i));
    if (command->examples)
        print_examples(out, command->examples);
}

void help_print(FILE *out, const Command *command)
{
    if (command)
        print_command(out, command);
    else
        print_program(out);
}
