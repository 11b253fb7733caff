# bash completion of moongate(1)
_moongate() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "run check explain reload drain top connections version help" -- "$word")
        return
    fi
    case $before in
    --state) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    --config | --admin | --control) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    esac
    if [[ $word == -* ]]; then
        case $command in
        run) mapfile -t COMPREPLY < <(compgen -W "--workers --admin --control --state --help" -- "$word") ;;
        check) mapfile -t COMPREPLY < <(compgen -W "--json --diff --control --help" -- "$word") ;;
        explain) mapfile -t COMPREPLY < <(compgen -W "--config --header --control --json --help" -- "$word") ;;
        top) mapfile -t COMPREPLY < <(compgen -W "--control --interval --count --json --help" -- "$word") ;;
        connections) mapfile -t COMPREPLY < <(compgen -W "--control --limit --json --help" -- "$word") ;;
        reload | drain) mapfile -t COMPREPLY < <(compgen -W "--control --json --help" -- "$word") ;;
        version | help) mapfile -t COMPREPLY < <(compgen -W "--json --help" -- "$word") ;;
        esac
        return
    fi
    case $command in
    run | check) mapfile -t COMPREPLY < <(compgen -f -X '!*.lua' -- "$word"; compgen -d -- "$word") ;;
    explain) [ "$COMP_CWORD" -eq 2 ] &&
        mapfile -t COMPREPLY < <(compgen -W "GET HEAD POST PUT PATCH DELETE OPTIONS" -- "$word") ;;
    esac
}
complete -F _moongate moongate
