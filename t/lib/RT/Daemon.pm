package RT::Daemon;

# An RT::Nginx with "daemon on", whose master may be another one later: a
# binary upgrade.
#
#     my $ngx = RT::Daemon->new(...);       # as RT::Nginx
#     my $new = $ngx->upgrade;              # USR2: pid of the new master, when
#                                           # it has all of its workers
#     $ngx->masters                         # pids
#     $ngx->workers($master)                # of this one, or of all
#     $ngx->old_workers($master)            # those that shut down
#     $ngx->pid($new)                       # signal, reload, stop mean this
#
# The masters are no children of the test by birth: it adopts them, so that
# they can be waited for.  A process of its own ends them when the test dies.

use v5.36;
use parent -norequire, 'RT::Nginx';
use POSIX qw(:sys_wait_h);
use RT;

my %subreaper = (x86_64 => [157, 36], aarch64 => [167, 36]);

# false: this machine can't
sub possible {
    my $call = $subreaper{(POSIX::uname())[4]} or return 0;
    my ($nr, $option, $on) = (@$call, 1);
    return syscall($nr, $option, $on, 0, 0, 0) == 0;
}

sub _write_conf ($self) {
    $self->SUPER::_write_conf;
    my $file = "$self->{dir}/nginx.conf";
    my $conf = RT::slurp($file);
    $conf =~ s/^daemon off;/daemon on;/m or die "no daemon off\n";
    RT::spew($file, $conf);
}

# USR2 looks for the binary by this name
sub _argv ($self, @more) {
    my ($name, @args) = @{$self->SUPER::_argv(@more)};
    ($name) = grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH}),
        '/usr/sbin' if $name !~ m{/};
    return [$name, @args];
}

sub start ($self) {
    RT::register($self);
    unlink "$self->{dir}/nginx.pid";
    my $pid = RT::spawn($self->_argv, env => $self->_env,
                        out => "$self->{dir}/logs/stderr");
    RT::poll_until(sub { !RT::running($pid) }, 20) // die "does not start\n";
    $self->{pid} = RT::poll_until(sub {
        RT::slurp("$self->{dir}/nginx.pid") =~ /^(\d+)/ && $1 }, 10)
        // die "nginx does not start:\n"
            . RT::slurp("$self->{dir}/logs/stderr") . $self->log;
    $self->{group} = $self->{pid};      # setsid()
    $self->{watch} = $self->_watch;
    RT::poll_until(sub {
        $self->workers >= $self->_nworkers && $self->_listens }, 15)
        // die "nginx does not start\n";
}

# ends the group when the test is gone; nothing when told so
sub _watch ($self) {
    pipe my $read, my $write or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        setpgrp 0, 0;
        close $write;
        my $n = sysread $read, my $byte, 1;
        kill KILL => -$self->{group} if !$n;
        POSIX::_exit(0);
    }
    close $read;
    return [$pid, $write];
}

sub _unwatch ($self) {
    my ($pid, $write) = @{delete $self->{watch} // return};
    syswrite $write, 'x';
    waitpid $pid, 0;
}

sub _pids ($self, $title, $master = undef) {
    my @pids;
    for my $pid (RT::group($self->{group})) {
        next if RT::slurp("/proc/$pid/cmdline") !~ $title;
        my (undef, $ppid) = split / /,
            RT::slurp("/proc/$pid/stat") =~ s/^.*\) //sr or next;
        push @pids, $pid if !defined $master || $ppid == $master;
    }
    @pids = sort { $a <=> $b } @pids;
    return @pids;
}

sub masters ($self) { return $self->_pids(qr/^nginx: master/) }

sub workers ($self, $master = $self->{pid}) {
    return $self->_pids(qr/^nginx: worker process\0*\z/, $master);
}

sub old_workers ($self, $master = undef) {
    return $self->_pids(qr/^nginx: worker process is shutting/, $master);
}

sub pid ($self, $pid = undef) {
    $self->{pid} = $pid if defined $pid;
    return $self->{pid};
}

sub upgrade ($self) {
    my %old = map { $_ => 1 } $self->masters;
    kill USR2 => $self->{pid};
    return RT::wait_for {
        my ($new) = grep { !$old{$_} } $self->masters;
        $new && $self->workers($new) >= $self->_nworkers ? $new : 0;
    } 10, 'a new master with its workers';
}

# true while it is there
sub alive ($self, $pid) {
    waitpid $pid, WNOHANG;
    return kill(0, $pid) ? 1 : 0;
}

sub stop ($self, $seconds = 15) {
    return if $self->{stopped}++;
    RT::SSE::close_all($self);
    my @bad;
    push @bad, "master $_ is left" for grep { $_ != $self->{pid} }
        $self->masters;
    push @bad, 'the master is gone' if !$self->alive($self->{pid});
    kill QUIT => $self->{pid};
    RT::poll_until(sub { !$self->alive($self->{pid}) }, $seconds)
        // push @bad, "still there $seconds s after QUIT";
    push @bad, map { "left: process $_" } RT::group($self->{group});
    $self->_unwatch;
    kill KILL => -$self->{group};
    push @bad, $self->_complaints;
    local $Test::Builder::Level = $Test::Builder::Level + 2;
    RT::ok(!@bad, "$self->{name} ends cleanly");
    RT::diag($_) for @bad;
    return !@bad;
}

sub abandon ($self) {
    return if $self->{stopped}++;
    $self->_unwatch;
    kill KILL => -$self->{group} if $self->{group};
    RT::diag("$self->{name}: $_") for $self->_complaints;
}

1;
