#!/bin/sh
# train_recipes.sh DATA [RECIPE...]: train the recipes one after the other, each where it broke off, and keep each
# result in training/results/ as soon as it is there. What has a result is passed by. Run it in the background:
#     nohup nice -n 10 tools/train_recipes.sh ../shared/data/Dataset_BUSI_with_GT > runs/queue.log 2>&1 &
# SET holds settings for all of them, such as SET='fit.epochs=12 model.size=128'; PYTHON and THREADS as they say.
set -u

data=$1
shift
: "${PYTHON:=.venv/bin/python}" "${THREADS:=1}" "${SET:=fit.epochs=12 model.size=128 fit.patience=0}"
[ $# -gt 0 ] || set -- unet unet-leaky efficientnet_lite2 fpn deeplabv3plus segformer unetplusplus \
    resnet18 efficientnet_b0 densenet121 resnet50 unet-scratch fcn

settings=
for setting in $SET; do
    settings="$settings --set $setting"
done
mkdir -p runs
for name in "$@"; do
    result=training/results/$name.json
    [ -f "$result" ] && continue
    # a run that ended just before this script did
    if [ -f "runs/$name/bundle/card.json" ]; then
        cp "runs/$name/results.json" "$result"
        continue
    fi
    recipe=${name%-leaky}
    extra=
    # as many images as the folds give each part
    [ "$recipe" = "$name" ] || extra="--leaky --set split.test=0.2 --set split.validation=0.096"
    # of these the ImageNet weights come from the hub, which may be out of reach
    case $recipe in
    resnet* | densenet* | efficientnet_b0 | fcn) extra="$extra --set fit.pretrained=false" ;;
    esac
    echo "$(date '+%F %T') $name"
    # shellcheck disable=SC2086 - the settings are words
    OMP_NUM_THREADS=$THREADS "$PYTHON" -m sonoloop_training train "$recipe" --data "$data" --out "runs/$name" \
        --threads "$THREADS" $settings $extra > "runs/$name.jsonl" 2> "runs/$name.err" \
        && cp "runs/$name/results.json" "$result" \
        || echo "$(date '+%F %T') $name failed: $(tail -n 1 "runs/$name.jsonl")"
done
